"""What several processes share: faces, noise, pools, statistics, metrics; and that the result is one process's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fakegan.data.batches import DealtStoreOrder, TrainOrder
from fakegan.data.store import FaceStore
from fakegan.errors import AlreadyReportedError, UsageError
from fakegan.nets.dropout import Dropout
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.system import processes, ranks
from fakegan.system.places import PROJECT
from fakegan.training.batchnorm import notes_on_ranks, share_statistics
from fakegan.training.datamodules import RealFacesDataModule
from fakegan.training.pool import ReconstructionPool
from tests.helpers import begin, record
from tests.recorded import COUNTED

As = Callable[[int, int], None]


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> As:
    """Be process `rank` of `count` for what is asked next."""

    def be(rank: int, count: int) -> None:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "count", lambda: count)

    return be


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_together_see_one_process_order(process: As, count: int) -> None:
    order = TrainOrder(lambda rng: np.arange(37), batch_size=8, seed=5)
    order.trained = lambda: (4 + 1, 4)  # the second batch of epoch 1
    process(0, 1)
    whole = list(order)
    assert [len(draw.rows) for draw in whole] == [8, 8, 8]
    for rank in range(count):
        process(rank, count)
        for mine, all_ in zip(order, whole, strict=True):
            assert mine.rows.tolist() == all_.rows[rank::count].tolist()
            assert mine.flips.tolist() == all_.flips[rank::count].tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_validation_face_is_seen_by_exactly_one_process_in_whole_batches(process: As, count: int) -> None:
    rows, seen = np.arange(33), []
    order = DealtStoreOrder(rows, batch_size=10)  # 10, 10, 10, 3
    for rank in range(count):
        process(rank, count)
        batches = [draw.rows.tolist() for draw in order]
        assert len(batches) == len(order) >= 1  # a process without faces has an empty batch: all meet at the end
        seen += [batch for batch in batches if batch]
    assert sorted(seen) == [list(range(i, min(i + 10, 33))) for i in range(0, 33, 10)]


def test_work_is_shared_in_pieces_one_after_another(process: As) -> None:
    pieces = []
    for rank in range(3):
        process(rank, 3)
        pieces.append(list(ranks.share(range(10))))
    assert pieces == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


def test_a_batch_that_cannot_be_dealt_evenly_names_the_nearest_sizes(process: As, store: FaceStore) -> None:
    process(0, 4)
    rows = np.flatnonzero(store.labels == 0)
    with pytest.raises(UsageError, match=r"budget\.autoencoder\.batch_size=50 .* to 4 processes: choose 48 or 52"):
        RealFacesDataModule(store.images, store.labels, rows[:100], rows[100:], batch_size=50, seed=0, workers=0)
    with pytest.raises(UsageError, match=r"choose 4$"):
        ranks.check_divisible(3, "key", 4)


def test_noise_is_dealt_from_one_process_noise_and_other_noise_differs_by_process(process: As) -> None:
    """Other noise, as of a user's own layer: several processes draw one each, the same again in the same step."""

    def drawn(rank: int, count: int) -> tuple[list[float], list[float], list[float]]:
        process(rank, count)
        ranks.seed_noise(3, "cpu")
        first = ranks.draw(torch.rand, 6 // count)
        mask = torch.nn.functional.dropout(torch.ones(40), 0.5)
        second = ranks.draw(torch.rand, 6 // count)
        return first.tolist(), mask.tolist(), second.tolist()

    torch.manual_seed(3)
    alone = torch.rand(6).tolist(), torch.nn.functional.dropout(torch.ones(40), 0.5).tolist(), torch.rand(6).tolist()
    assert drawn(0, 1) == alone
    both = [drawn(rank, 2) for rank in (0, 1)]
    assert both == [drawn(rank, 2) for rank in (0, 1)]
    assert both[0][1] != both[1][1]
    torch.manual_seed(3)
    dealt = torch.rand(6).tolist(), torch.rand(6).tolist()  # one after another, whatever else is drawn between
    for rank in (0, 1):
        assert (both[rank][0], both[rank][2]) == (dealt[0][rank::2], dealt[1][rank::2])


def test_layers_whose_number_of_processes_counts_are_named(process: As) -> None:
    class Own(nn.BatchNorm2d):
        pass

    noisy = [nn.AlphaDropout(0.3), nn.Dropout2d(0.0), Dropout(0.3), nn.RReLU()]
    net = nn.Sequential(*noisy, nn.BatchNorm1d(2), nn.BatchNorm2d(2), Own(2))
    assert notes_on_ranks([net]) == []
    process(0, 2)
    noise, norms = notes_on_ranks([net])
    assert noise.startswith("AlphaDropout, RReLU: each process draws noise of its own")
    assert norms.startswith("Own: each process normalises by its own faces")
    share_statistics(net)
    assert [type(part).__name__ for part in net[4:]] == ["SharedBatchNorm1d", "SharedBatchNorm2d", "Own"]
    assert len(notes_on_ranks([net])) == 2


def test_dropout_treats_a_face_alike_in_any_number_of_processes(process: As) -> None:
    dropout, x = Dropout(0.4), torch.rand(6, 11) + 1

    def dropped(rank: int, count: int) -> torch.Tensor:
        process(rank, count)
        ranks.seed_noise(1, "cpu")
        return dropout(x[rank::count])

    whole = dropped(0, 1)
    assert torch.equal(torch.stack([dropped(0, 2), dropped(1, 2)], dim=1).reshape(6, 11), whole)
    kept = whole != 0
    torch.testing.assert_close(whole[kept], (x / 0.6)[kept])
    assert 0.4 < float(kept.float().mean()) < 0.8
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("count", [2, 4])
def test_pools_of_several_processes_show_what_one_would(process: As, count: int) -> None:
    """And put together they are its pool, so that a checkpoint serves any number of processes."""
    batches = torch.rand(30, 8, 3, 64, 64)

    def shown(pool: ReconstructionPool, rank: int, count: int) -> list[torch.Tensor]:
        process(rank, count)
        result = []
        for seed, batch in enumerate(batches):
            ranks.seed_noise(seed, "cpu")
            result.append(pool(batch[rank::count]))
        return result

    alone = ReconstructionPool(13)  # places have two slots, or one
    whole = shown(alone, 0, 1)
    assert sum(not torch.equal(a, b) for a, b in zip(whole, batches, strict=True)) > 20
    total = torch.zeros_like(alone.images)
    for rank in range(count):
        pool = ReconstructionPool(13)
        for mine, all_ in zip(shown(pool, rank, count), whole, strict=True):
            assert torch.equal(mine, all_[rank::count])
        total += pool.own_images()
        pool.load_state_dict(alone.state_dict())  # going on from a whole pool, it adds its own slots alone
        own = torch.arange(13) % 8 % count == rank
        assert torch.equal(pool.own_images()[own], alone.images[own])
        assert not pool.own_images()[~own].any()
    assert torch.equal(total, alone.images)


def test_a_fresh_run_inherits_no_place_among_processes() -> None:
    own = {"HOME": "h", "A_RANK": "1"}
    inherited = dict.fromkeys(("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"), "1")
    assert ranks.without_ranks(own | inherited) == own


def _together(tmp_path: Path, program: str) -> None:
    processes.run_ranks([sys.executable, "-c", program], 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "said"),
    [("time.sleep(60)", ""), ("ranks.total(torch.zeros(3))", "process 0 of 2 has lost another")],
    ids=["busy", "waiting for it"],
)
def test_a_process_that_fails_ends_the_others_and_its_words_are_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], first: str, said: str
) -> None:
    program = f"""
import sys, time
import torch
from fakegan.system import ranks
from fakegan.errors import FakeganError
ranks.connect()
try:
    with ranks.peer_failure_as_error():
        if ranks.rank():
            sys.exit("error: disk of the second")
        {first}
except FakeganError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
    with pytest.raises(AlreadyReportedError) as told:
        _together(tmp_path, program)
    assert told.value.exit_code == 1
    shown = capfd.readouterr().err
    assert "error: disk of the second" in shown
    assert said in shown


@pytest.mark.slow
def test_torchrun_gives_its_processes(tmp_path: Path, store_path: Path) -> None:
    """Both train one run, in one folder; with a trainer of one device they are refused."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    def run(name: str, trainer: str) -> subprocess.CompletedProcess[str]:
        settings = begin(store_path, tmp_path / name, "pipeline=classify", trainer)
        command = [*torchrun, str(PROJECT / "train.py"), f"resume={settings.paths.run_dir}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)

    trained = run("two", "trainer=ddp_cpu")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("test: scoring") == 1
    assert (tmp_path / "two" / "metrics.json").is_file()
    refused = run("one", "trainer=cpu")
    assert refused.returncode != 0
    assert "2 processes were started, but trainer.devices=1: add trainer=ddp" in refused.stderr


@pytest.mark.slow
def test_statistics_of_a_shared_batch_are_those_of_the_whole(tmp_path: Path) -> None:
    """Shared BatchNorm in two processes against torch's in one: outputs, running statistics, gradients."""
    program = f"""
import torch
from torch import nn
from fakegan.system import ranks
from fakegan.training.batchnorm import share_statistics
def made():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
        nn.Linear(196, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1),
    )
net = made()
x = torch.randn(6, 3, 9, 9)
expected = net(x)
expected.square().mean().backward()
wanted = [p.grad.clone() for p in net.parameters()] + [b.clone() for b in net.buffers()]
net = made()
ranks.connect()
share_statistics(net)
out = net(ranks.dealt(x))
out.square().mean().backward()
got = [ranks.mean(p.grad) for p in net.parameters()] + list(net.buffers())
torch.testing.assert_close(out, ranks.dealt(expected))
for a, b in zip(got, wanted, strict=True):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
ranks.on_rank_zero(lambda: open({str(tmp_path / "done")!r}, "w").close())
"""
    _together(tmp_path, program)
    assert (tmp_path / "done").is_file()


MODULES = {
    "autoencoder": (
        *("pipeline=autoencoder", "model.net.norm=instance", "budget.autoencoder={max_epochs: 4, batch_size: 8}"),
        *("model=autogan1", "budget.width=32"),  # 128 channels: Winograd's convolutions
    ),
    "simple_cnn": (
        *("pipeline=classify", "classifier=simple_cnn", "budget.classifier={max_epochs: 3, batch_size: 8}"),
    ),
    "alexnet": ("pipeline=classify", "classifier=alexnet", "budget.classifier={max_epochs: 3, batch_size: 8}"),
    "dcgan": ("pipeline=classify", "classifier=dcgan", "budget.dcgan={max_epochs: 3, batch_size: 8}"),
    "augmented": (
        *("pipeline=classify", "classifier=simple_cnn", "budget.classifier={max_epochs: 3, batch_size: 8}"),
        *("augment=robust", "augment.cutmix=0.3"),
    ),
    "thawed": (  # a body that is frozen at first, two learning rates
        *("pipeline=classify", "classifier=simple_cnn", "classifier.frozen_epochs=1", "classifier.body_lr=0.5"),
        *("classifier.ema=0.9", "budget.classifier={max_epochs: 3, batch_size: 8}"),
    ),
    "own": (  # a user's net, with torch's Dropout and BatchNorm1d
        *("pipeline=classify", "classifier=simple_cnn", "classifier.net._target_=tests.helpers.PlainNet"),
        *("classifier.net.dropout=0.4", "budget.classifier={max_epochs: 3, batch_size: 8}"),
        "trainer.gradient_clip_val=0.5",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "modes", "tolerance"), [*((module, ("double",), 1e-12) for module in MODULES), ("dcgan", (), 1e-4)]
)
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, store_path: Path, module: str, modes: tuple[str, ...], tolerance: float
) -> None:
    """The same faces in the same order with the same noise: losses differ by rounding alone, which Adam enlarges."""
    words = MODULES[module]
    one = begin(store_path, tmp_path / "one", *words, "trainer=cpu")
    two = begin(store_path, tmp_path / "two", *words, "trainer=ddp_cpu")
    ones, twos = record(one, *modes), record(two, *modes)
    assert len(ones) == len(twos) >= 20
    worst = max(abs(a[name] - b[name]) for a, b in zip(ones, twos, strict=True) for name in a if "accuracy" not in name)
    print(f"{module} {modes}: largest difference of a loss in {len(ones)} steps: {worst:.1e}")
    assert worst < tolerance
    assert max(abs(ones[0][name] - ones[-1][name]) for name in ones[0]) > 10 * worst  # it did learn meanwhile


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "of_an_epoch", "first", "later"),
    [
        ("autoencoder", 5, 3, 3),  # each network's gradients, and the loss below which the discriminator rests
        ("thawed", 13, 1, 5),  # all gradients; of two BatchNorms, which rest at first, the statistics and their own
    ],
)
def test_two_processes_meet_once_a_network_in_a_step(
    tmp_path: Path, store_path: Path, module: str, of_an_epoch: int, first: int, later: int
) -> None:
    """Each meeting is a wait. After the first step they agree on stopping, and at an epoch's end on more."""
    steps = record(begin(store_path, tmp_path / "two", *MODULES[module], "trainer=ddp_cpu"), "counted")
    assert steps[1 : of_an_epoch - 1] == [{"c10d::allreduce_": first}] * (of_an_epoch - 2)
    assert steps[of_an_epoch : of_an_epoch + 2] == [{"c10d::allreduce_": later}] * 2
    assert len(steps) == COUNTED


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("pipeline=classify", "classifier=alexnet"),
        ("pipeline=recon_classify", "classifier=simple_cnn", "model.optimizer.lr=0.0"),  # they share reconstructing
    ],
    ids=["alexnet", "recon_classify"],
)
def test_metrics_on_two_processes_are_exact_with_an_odd_count(
    tmp_path: Path, store_path: Path, words: tuple[str, ...]
) -> None:
    """The learning rates are 0: both validate and test the same networks; no face may count twice."""
    words = (*words, "classifier.optimizer.lr=0.0", "data.split.val=0.16")
    one = begin(store_path, tmp_path / "one", *words, "trainer=cpu")
    two = begin(store_path, tmp_path / "two", *words, "trainer=ddp_cpu")
    record(one), record(two)
    ours, theirs = (json.loads((s.paths.run_dir / "metrics.json").read_text()) for s in (one, two))
    assert (ours["val"]["n_real"] + ours["val"]["n_fake"]) % 2 == 1
    assert ours["val"] == theirs["val"]
    assert ours["test"] == theirs["test"]
    kept = [
        load_checkpoint(s.paths.run_dir / "classifier" / "checkpoints" / "best.ckpt")["metrics"] for s in (one, two)
    ]
    named = {name for name in kept[0] if name.startswith("val/") and "generated" not in name}
    assert {"val/auroc", "val/average_precision", "val/accuracy", "val/loss"} <= named
    for name in named:
        assert kept[0][name] == kept[1][name], name


@pytest.mark.slow
def test_noise_that_is_not_dealt_trains_on_two_processes_and_the_run_says_what_it_breaks(
    tmp_path: Path, store_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same words give the same losses again; another number of processes gives others, though not far away."""
    words = (*MODULES["own"], "classifier.net.alpha=true", "classifier.optimizer.lr=0.02")
    two, again = (begin(store_path, tmp_path / name, *words, "trainer=ddp_cpu") for name in ("two", "again"))
    one = begin(store_path, tmp_path / "one", *words, "trainer=cpu")
    twos = record(two)
    assert (
        "\nAlphaDropout: each process draws noise of its own, so what is learnt depends on how many"
        in capfd.readouterr().out
    )
    assert record(again) == twos
    ones = record(one)
    assert "draws noise" not in capfd.readouterr().out.rpartition("device:")[2]
    assert ones != twos
    assert len(ones) == len(twos)
    first, last = ([step["loss"] for step in part] for part in (twos[:13], twos[-13:]))  # of an epoch
    assert sum(last) < sum(first)
