"""A run that is killed at any moment goes on and ends with the same bits: weights, Adam's state, pool, metrics."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.system.places import PROJECT

from .test_ranks import begin
from .test_slurm import be_job_17

pytestmark = pytest.mark.slow

EVERY_STEP, EVERY_EPOCH = (
    "callbacks.save_and_stop.minutes=0",
    "callbacks.save_and_stop.minutes=60",
)  # when last.ckpt is written
MODULES = {
    "autoencoder": ("pipeline=autoencoder", "model.pool_size=5", "budget.autoencoder={max_epochs: 10, batch_size: 8}"),
    "simple_cnn": (
        *("pipeline=classify", "classifier=simple_cnn", "budget.classifier={max_epochs: 10, batch_size: 8}"),
    ),
    "alexnet": ("pipeline=classify", "classifier=alexnet", "budget.classifier={max_epochs: 10, batch_size: 8}"),
    "dcgan": ("pipeline=classify", "classifier=dcgan", "budget.dcgan={max_epochs: 10, batch_size: 8}"),
    "own": (  # a user's net, with torch's own Dropout
        *("pipeline=classify", "classifier=simple_cnn", "classifier.net._target_=tests.helpers.PlainNet"),
        "budget.classifier={max_epochs: 10, batch_size: 8}",
    ),
}
STEPS = {"autoencoder": 5, "classifier": 13}  # of an epoch, of eight faces each
ONE, TWO = "trainer=cpu", "trainer=ddp_cpu"


def start(settings: RunSettings, own_group: bool = False) -> subprocess.Popen[bytes]:
    """`train.py resume=RUN_DIR` in a process of its own."""
    command = [sys.executable, str(PROJECT / "train.py"), f"resume={settings.paths.run_dir}", "trust=[tests]"]
    log = (settings.paths.run_dir / "log.txt").open("ab")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=own_group)


def finish(settings: RunSettings) -> None:
    """Run it to its end."""
    process = start(settings)
    assert process.wait() == 0, (settings.paths.run_dir / "log.txt").read_text()[-3000:]


def kill_after_saving(settings: RunSettings, last: Path, moment: float) -> None:
    """Start it, and SIGKILL it `moment` seconds after it has saved; it must not have ended by itself."""
    before = last.stat().st_mtime_ns if last.exists() else 0
    process = start(settings)
    while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
        time.sleep(0.01)
    time.sleep(moment)
    assert process.poll() is None, "it ended before it could be killed"
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    process.kill()
    for child in children.stdout.split():  # the run's processes, where it has several: its loader's, else
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    process.wait()


def steps_done(last: Path) -> int:
    """Of the fit that goes on from this checkpoint, since its first epoch."""
    return int(load_checkpoint(last)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


def same(ours: Any, theirs: Any, at: str = "") -> None:
    """Every tensor and number in two nested structures has the same bits."""
    assert type(ours) is type(theirs), at
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), at
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), at
        for key, value in ours.items():
            same(value, theirs[key], f"{at}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), at
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{at}[{i}]")
    elif not isinstance(ours, str):
        assert ours == theirs, at


def same_run(ours: Path, theirs: Path) -> None:
    """Both runs end with the same networks, optimizers, pools and metrics."""
    names = sorted(str(p.relative_to(ours)) for p in ours.rglob("*.ckpt"))
    assert names == sorted(str(p.relative_to(theirs)) for p in theirs.rglob("*.ckpt"))
    assert names
    for name in names:
        a, b = load_checkpoint(ours / name), load_checkpoint(theirs / name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics"):
            same(a[part], b[part], f"{name}: {part}")
    kept = [json.loads((run / "metrics.json").read_text()) for run in (ours, theirs)]
    for metrics in kept:
        del metrics["command"]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("module", "workers", "trainer", "saved"),
    [
        *((module, 0, ONE, EVERY_STEP) for module in MODULES),
        ("autoencoder", 2, ONE, EVERY_STEP),
        ("simple_cnn", 2, ONE, EVERY_EPOCH),
        ("autoencoder", 0, TWO, EVERY_STEP),
        ("dcgan", 2, TWO, EVERY_EPOCH),
        ("own", 0, TWO, EVERY_STEP),
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
    stage = "autoencoder" if module == "autoencoder" else "classifier"
    last = killed.paths.run_dir / stage / "checkpoints" / "last.ckpt"
    stood, within = [], 0  # steps done at each kill; how often it stood in the middle of an epoch
    while len(stood) < 2 or (saved == EVERY_STEP and not within):
        assert len(stood) < 8, f"always killed at an epoch's end: {stood}"
        kill_after_saving(killed, last, rng.uniform(0, 0.4))
        stood.append(steps_done(last))
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
    kill_after_saving(first, first.paths.run_dir / "autoencoder" / "checkpoints" / "last.ckpt", 0.2)
    finish(second)
    log = (second.paths.run_dir / "log.txt").read_text()
    assert "autoencoder: going on where a stopped" in log
    assert "epoch 1/10" not in log or steps_done(first.paths.run_dir / "autoencoder" / "checkpoints" / "last.ckpt") < 5
    weights = [load_checkpoint(r.paths.run_dir / "autoencoder" / "autoencoder.pt")["weights"] for r in (whole, second)]
    same(*weights)
    finish(first)
    assert "autoencoder: found trained" in (first.paths.run_dir / "log.txt").read_text()


@pytest.mark.parametrize("trainer", [ONE, TWO])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(
    tmp_path: Path, store_path: Path, trainer: str, number: signal.Signals, code: int
) -> None:
    """Or between two epochs, where the signal comes then; test_stopping.py chooses the step."""
    words = (
        "pipeline=classify",
        "budget.classifier={max_epochs: 400, batch_size: 8}",
        "callbacks.early_stopping.patience=999",
        trainer,
    )
    settings = begin(store_path, tmp_path / "run", *words)
    process, last = start(settings), settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait() == code
    said = (settings.paths.run_dir / "log.txt").read_text()
    assert len(re.findall(r"stopped; go on with: .*train\.py resume=", said)) == 1
    epoch = steps_done(last) // STEPS["classifier"] + 1
    assert not (settings.paths.run_dir / "metrics.json").exists()
    again = start(settings)  # it goes on from there
    while "epoch" not in (settings.paths.run_dir / "log.txt").read_text()[len(said) :] and again.poll() is None:
        time.sleep(0.05)
    again.kill()
    again.wait()
    resumed = (settings.paths.run_dir / "log.txt").read_text()[len(said) :]
    assert int(resumed.split("epoch ")[1].split("/")[0]) == epoch


def test_a_run_that_is_worked_on_is_left_alone(tmp_path: Path, store_path: Path) -> None:
    words = (
        "pipeline=classify",
        "budget.classifier={max_epochs: 300, batch_size: 8}",
        "callbacks.early_stopping.patience=999",
        ONE,
    )
    settings = begin(store_path, tmp_path / "run", *words)
    first, last = start(settings), settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"
    while not last.exists() and first.poll() is None:
        time.sleep(0.02)
    second = start(settings)
    log = settings.paths.run_dir / "log.txt"
    while "another process works on" not in log.read_text() and second.poll() is None:
        time.sleep(0.05)
    assert "another process works on" in log.read_text()
    assert first.poll() is None
    for process in (second, first):
        process.kill()
        process.wait()


def test_every_process_of_a_run_may_get_the_signal(tmp_path: Path, store_path: Path) -> None:
    """As SLURM sends it: the first passes it on, too, and that must not count as asking twice."""
    words = (
        "pipeline=classify",
        "budget.classifier={max_epochs: 400, batch_size: 8}",
        "callbacks.early_stopping.patience=999",
        TWO,
    )
    settings = begin(store_path, tmp_path / "run", *words)
    process, last = start(settings), settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    for pid in (process.pid, *map(int, children.stdout.split())):
        with contextlib.suppress(ProcessLookupError):  # it was told by the first, and has ended
            os.kill(pid, signal.SIGTERM)
    assert process.wait() == 143
    assert "Traceback" not in (settings.paths.run_dir / "log.txt").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_loaders_may_get_the_signal_too(tmp_path: Path, store_path: Path, number: signal.Signals, code: int) -> None:
    """A terminal's Ctrl-C and `timeout` go to every process of the group."""
    budget = (
        "budget.classifier={max_epochs: 400, batch_size: 8}",
        "callbacks.early_stopping.patience=999",
        "data.workers=2",
    )
    settings = begin(store_path, tmp_path / "run", "pipeline=classify", *budget, EVERY_EPOCH, ONE)
    process = start(settings, own_group=True)
    last = settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    assert process.wait() == code
    said = (settings.paths.run_dir / "log.txt").read_text()
    assert len(re.findall(r"stopped; go on with: .*train\.py resume=", said)) == 1
    assert "Traceback" not in said
    assert "error" not in said


@pytest.mark.parametrize(
    ("answer", "code", "words", "trainer"),
    [(0, 75, "is in the queue again", ONE), (1, 138, "submit it anew", ONE), (0, 75, "is in the queue again", TWO)],
)
def test_slurms_signal_saves_and_asks_for_the_queue(
    tmp_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int, code: int, words: str, trainer: str
) -> None:
    asked = be_job_17(tmp_path, monkeypatch, answer)
    budget = ("budget.classifier={max_epochs: 400, batch_size: 8}", "callbacks.early_stopping.patience=999")
    settings = begin(store_path, tmp_path / "run", "pipeline=classify", *budget, trainer)
    process, last = start(settings), settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == code
    assert asked.read_text() == "requeue 17\n"
    assert words in (settings.paths.run_dir / "log.txt").read_text()


def test_a_folder_that_cannot_take_checkpoints_is_refused_before_training(tmp_path: Path, store_path: Path) -> None:
    settings = begin(store_path, tmp_path / "run", "pipeline=classify", ONE)
    (settings.paths.run_dir / "classifier").mkdir()
    (settings.paths.run_dir / "classifier" / "checkpoints").touch()  # a file: root may write into any folder
    process = start(settings)
    assert process.wait() == 1
    said = (settings.paths.run_dir / "log.txt").read_text()
    assert "checkpoints cannot be written" in said
    assert "epoch" not in said


@pytest.mark.parametrize("damage", ["keys", "shape"])
def test_a_checkpoint_of_another_network_is_refused_in_a_sentence(
    tmp_path: Path, store_path: Path, damage: str
) -> None:
    budget = ("budget.classifier={max_epochs: 400, batch_size: 8}", "callbacks.early_stopping.patience=999")
    settings = begin(store_path, tmp_path / "run", "pipeline=classify", *budget, ONE)
    last = settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"
    kill_after_saving(settings, last, 0)
    content = load_checkpoint(last)
    if damage == "keys":
        del content["pytorch-lightning_version"]
    else:
        content["state_dict"]["net.features.0.weight"] = torch.zeros(2, 2)
    save_checkpoint(content, last)
    process = start(settings)
    assert process.wait() == 1
    said = (settings.paths.run_dir / "log.txt").read_text()
    assert "is of another network" in said
    assert "Traceback" not in said
