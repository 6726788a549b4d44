"""A run that is killed at any moment goes on and ends with the same bits: weights, Adam's state, pool, metrics."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.system.places import PROJECT
from tests.helpers import be_job_17, begin, same, same_run, steps_done

pytestmark = pytest.mark.slow

EVERY_STEP, EVERY_EPOCH = (f"callbacks.save_and_stop.minutes={minutes}" for minutes in (0, 60))  # last.ckpt is written
ONE, TWO = "trainer=cpu", "trainer=ddp_cpu"
LOADERS = (ONE, "data.workers=2", EVERY_EPOCH)
TEN = "={max_epochs: 10, batch_size: 8}"
MODULES = {
    "autoencoder": ("pipeline=autoencoder", "model.pool_size=5", f"budget.autoencoder{TEN}"),
    "simple_cnn": ("pipeline=classify", "classifier=simple_cnn", f"budget.classifier{TEN}"),
    "alexnet": ("pipeline=classify", "classifier=alexnet", f"budget.classifier{TEN}"),
    "dcgan": ("pipeline=classify", "classifier=dcgan", f"budget.dcgan{TEN}"),
    "augmented": (
        *("pipeline=classify", "classifier=simple_cnn", "augment=robust", "augment.cutmix=0.3"),
        f"budget.classifier{TEN}",
    ),
    "thawed": (  # a body that is frozen at first, two learning rates, averaged weights
        *("pipeline=classify", "classifier=simple_cnn", "classifier.frozen_epochs=4", "classifier.body_lr=0.5"),
        *("classifier.ema=0.9", f"budget.classifier{TEN}"),
    ),
    "averaged": ("pipeline=classify", "classifier=dcgan", "classifier.ema=0.9", f"budget.dcgan{TEN}"),
    "own": (  # a user's net, with torch's own Dropout
        *("pipeline=classify", "classifier=simple_cnn", "classifier.net._target_=tests.helpers.PlainNet"),
        f"budget.classifier{TEN}",
    ),
}
STEPS = {"autoencoder": 5, "classifier": 13}  # of an epoch, of eight faces each
LONG = (  # it does not end before it is stopped
    *("pipeline=classify", "budget.classifier={max_epochs: 400, batch_size: 8}"),
    "callbacks.early_stopping.patience=999",
)


def start(settings: RunSettings, own_group: bool = False) -> subprocess.Popen[bytes]:
    """`train.py resume=RUN_DIR` in a process of its own."""
    command = [sys.executable, str(PROJECT / "train.py"), f"resume={settings.paths.run_dir}", "trust=[tests]"]
    log = (settings.paths.run_dir / "log.txt").open("ab")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=own_group)


def said_by(settings: RunSettings) -> str:
    return (settings.paths.run_dir / "log.txt").read_text()


def finish(settings: RunSettings) -> None:
    """Run it to its end."""
    assert start(settings).wait() == 0, said_by(settings)[-3000:]


def last_of(settings: RunSettings) -> Path:
    """The last checkpoint of the network that the run trains."""
    stage = "classifier" if settings.pipeline.trains_classifier else "autoencoder"
    return settings.paths.run_dir / stage / "checkpoints" / "last.ckpt"


def start_and_let_save(settings: RunSettings, own_group: bool = False) -> subprocess.Popen[bytes]:
    """Start it, and wait until it has saved a checkpoint."""
    last = last_of(settings)
    before = last.stat().st_mtime_ns if last.exists() else 0
    process = start(settings, own_group)
    while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
        time.sleep(0.01)
    return process


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The run's processes, where it has several: its loader's, else."""
    command = ["ps", "-o", "pid=", "--ppid", str(process.pid)]
    return [int(pid) for pid in subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()]


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(pid, number)


def kill_after_saving(settings: RunSettings, moment: float) -> None:
    """Start it, and SIGKILL it `moment` seconds after it has saved; it must not have ended by itself."""
    process = start_and_let_save(settings)
    time.sleep(moment)
    assert process.poll() is None, "it ended before it could be killed"
    signal_all([process.pid, *children_of(process)], signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("module", "workers", "trainer", "saved"),
    [
        *((module, 0, ONE, EVERY_STEP) for module in MODULES),
        ("autoencoder", 2, ONE, EVERY_STEP),
        ("simple_cnn", 2, ONE, EVERY_EPOCH),
        ("autoencoder", 0, TWO, EVERY_STEP),
        ("dcgan", 2, TWO, EVERY_EPOCH),
        ("own", 0, TWO, EVERY_STEP),
        ("augmented", 0, TWO, EVERY_STEP),
        ("thawed", 0, TWO, EVERY_STEP),
    ],
)
def test_killed_at_random_it_goes_on_from_the_last_step_or_epoch(
    tmp_path: Path, store_path: Path, module: str, workers: int, trainer: str, saved: str
) -> None:
    """Two kills or more; where last.ckpt is written after every step, one of them in the middle of an epoch."""
    words = (*MODULES[module], f"data.workers={workers}", trainer, saved)
    whole, killed = (begin(store_path, tmp_path / name, *words) for name in ("whole", "killed"))
    finish(whole)
    rng = random.Random(module + trainer + saved)
    stood: list[int] = []  # steps done at each kill
    within = 0  # how often it stood in the middle of an epoch
    while len(stood) < 2 or (saved == EVERY_STEP and not within):
        assert len(stood) < 8, f"always killed at an epoch's end: {stood}"
        kill_after_saving(killed, rng.uniform(0, 0.4))
        stood.append(steps_done(last_of(killed)))
        within += stood[-1] % STEPS["autoencoder" if module == "autoencoder" else "classifier"] > 0
    print(f"killed after {stood} steps")
    assert saved == EVERY_STEP or not within
    finish(killed)
    same_run(killed.paths.run_dir, whole.paths.run_dir)


def test_killed_at_any_moment_of_all_stages(tmp_path: Path, store_path: Path) -> None:
    """recon_classify, killed soon after each thing that a stage leaves behind."""
    words = ("pipeline=recon_classify", EVERY_STEP, ONE, "budget.classifier.max_epochs=3")
    left = (
        *("faces.sha256", "autoencoder/checkpoints/last.ckpt", "autoencoder/autoencoder.pt"),
        *("classifier/checkpoints/last.ckpt", "detector.pt", "analysis", "test_ledger.csv"),
    )
    whole, killed = (begin(store_path, tmp_path / name, *words) for name in ("whole", "killed"))
    finish(whole)
    rng, killed_after = random.Random(4), []
    for path in (killed.paths.run_dir / name for name in left):
        if path.exists():
            continue  # it came within the moment before the last kill
        process = start(killed)
        while not path.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        if process.poll() is None:
            killed_after.append(path.name)
        process.kill()
        process.wait()
    print(f"killed after {killed_after}")
    assert len(killed_after) >= 4
    finish(killed)
    same_run(killed.paths.run_dir, whole.paths.run_dir)


def test_an_autoencoder_that_one_run_began_another_takes_up(tmp_path: Path, store_path: Path) -> None:
    """The first is killed, and its lock free: what it has learnt is not learnt again."""
    shared = f"paths.artifact_dir={tmp_path / 'shared'}"
    whole = begin(store_path, tmp_path / "whole", *MODULES["autoencoder"])
    first, second = (begin(store_path, tmp_path / n, *MODULES["autoencoder"], EVERY_STEP, shared) for n in ("a", "b"))
    finish(whole)
    kill_after_saving(first, 0.2)
    finish(second)
    assert "autoencoder: going on where a stopped" in said_by(second)
    assert "epoch 1/10" not in said_by(second) or steps_done(last_of(first)) < STEPS["autoencoder"]
    weights = [load_checkpoint(r.paths.run_dir / "autoencoder" / "autoencoder.pt")["weights"] for r in (whole, second)]
    same(*weights)
    finish(first)
    assert "autoencoder: found" in said_by(first)


@pytest.mark.parametrize(
    ("words", "to", "number"),
    [
        *(((trainer,), "it", number) for trainer in (ONE, TWO) for number in (signal.SIGINT, signal.SIGTERM)),
        ((TWO,), "each process", signal.SIGTERM),  # as SLURM: rank 0 passes it on, too, and that is not asking twice
        (LOADERS, "its group", signal.SIGINT),  # as a terminal: the loaders get it, too
        (LOADERS, "its group", signal.SIGTERM),  # as `timeout`
    ],
)
def test_asked_to_stop_it_saves_and_says_how_to_go_on(
    tmp_path: Path, store_path: Path, words: tuple[str, ...], to: str, number: signal.Signals
) -> None:
    """Or between two epochs, where the signal comes then; test_stopping.py chooses the step."""
    settings = begin(store_path, tmp_path / "run", *LONG, *words)
    process = start_and_let_save(settings, own_group=to == "its group")
    if to == "its group":
        os.killpg(process.pid, number)
    else:
        signal_all([process.pid, *(children_of(process) if to == "each process" else [])], number)
    assert process.wait() == 128 + number
    said = said_by(settings)
    assert len(re.findall(r"stopped; resume with: .*train\.py resume=", said)) == 1
    assert "Traceback" not in said
    assert "error" not in said
    epoch = steps_done(last_of(settings)) // STEPS["classifier"] + 1
    assert not (settings.paths.run_dir / "metrics.json").exists()
    again = start(settings)  # it goes on from there
    while "epoch" not in said_by(settings)[len(said) :] and again.poll() is None:
        time.sleep(0.05)
    again.kill()
    again.wait()
    assert int(said_by(settings)[len(said) :].split("epoch ")[1].split("/")[0]) == epoch


@pytest.mark.parametrize(
    ("answer", "code", "words", "trainer"),
    [(0, 75, "is in the queue again", ONE), (1, 138, "submit it anew", ONE), (0, 75, "is in the queue again", TWO)],
)
def test_slurms_signal_saves_and_asks_for_the_queue(
    tmp_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int, code: int, words: str, trainer: str
) -> None:
    asked = be_job_17(tmp_path, monkeypatch, answer)
    settings = begin(store_path, tmp_path / "run", *LONG, trainer)
    process = start_and_let_save(settings)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == code
    assert asked.read_text() == "requeue 17\n"
    assert words in said_by(settings)
