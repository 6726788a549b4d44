"""The benchmarks run, and the sides of a row do the same work; how fast they are decides no test."""

import math
from itertools import pairwise
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fakegan.detector import reconstruct
from fakegan.modules.autoencoder import AdversarialAutoencoder
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from tests.benchmarks.__main__ import CASES, main, markdown_table
from tests.benchmarks.autoencoder import STUDY
from tests.benchmarks.baselines import ImagePool, StudyStep, reconstruct_one_by_one
from tests.benchmarks.harness import Row, interleave


@pytest.mark.parametrize("case", CASES)
def test_every_case_measures_two_sides(case: str) -> None:
    rows = list(CASES[case](True))
    assert rows
    for row in rows:
        assert len(row.ours) == len(row.theirs) == 2
        assert all(math.isfinite(ratio) and ratio > 0 for ratio in row.ratios)


def test_rounds_take_turns_after_a_warm_up() -> None:
    calls: list[tuple[str, int]] = []
    ours, theirs = interleave(
        lambda n: calls.append(("a", n)), lambda n: calls.append(("b", n)), 2, our_units=5, their_units=3
    )
    assert calls == [("a", 1), ("b", 1), ("a", 5), ("b", 3), ("a", 5), ("b", 3)]
    assert len(ours) == len(theirs) == 2


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    row = Row("a", "b", "step", ours=(1.0, 2.0, 4.0), theirs=(3.0, 4.0, 40.0), bar=1.5)
    assert row.ratios == (3.0, 2.0, 10.0)
    assert row.ratio == 3.0
    line = markdown_table([row]).splitlines()[-1]
    assert line == "| a | b | 1.5x | - | **3.00x** | 2.00x - 10.00x | 2.00 s / step | 4.00 s / step |"


def test_a_part_is_written_only_where_asked(tmp_path, capsys) -> None:
    page = tmp_path / "page.md"
    main(["--quick", "--only", "reconstruct", "--out", str(page)])
    assert "written" in capsys.readouterr().out
    assert page.read_text().count("\n| reconstruct in batches of 8") == 1
    page.unlink()
    main(["--quick", "--only", "reconstruct"])
    assert "written" not in capsys.readouterr().out


class _Losses(pl.Callback):
    """The losses of each step, out of the module's running means."""

    def __init__(self) -> None:
        self.sums: list[dict[str, float]] = [dict.fromkeys(("l1", "adversarial", "discriminator"), 0.0)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        means: dict[str, Tensor] = module.train_means.compute()
        self.sums.append({name: float(means[name]) * (batch_idx + 1) for name in self.sums[0]})

    def steps(self) -> list[dict[str, float]]:
        return [{name: after[name] - before[name] for name in after} for before, after in pairwise(self.sums)]


def test_the_studys_step_and_ours_compute_the_same(tmp_path) -> None:
    torch.manual_seed(0)
    module = AdversarialAutoencoder(1, 4, pool_size=0, **STUDY)
    generator, discriminator = AutoGAN(1, 4, "instance"), PatchDiscriminator(4)
    generator.load_state_dict(module.autoencoder.state_dict())
    discriminator.load_state_dict(module.discriminator.state_dict())
    batches = [torch.rand(4, 3, 64, 64) * 2 - 1 for _ in range(3)]

    step = StudyStep(generator, discriminator, pool_size=0)
    theirs = [{name: float(value) for name, value in step(real).items()} for real in batches]
    losses = _Losses()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[losses],
    )
    trainer.fit(module, DataLoader([{"image": real} for real in batches], batch_size=None))

    ours = losses.steps()
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-3)  # after two steps of both networks
    assert theirs[2]["l1"] != pytest.approx(theirs[0]["l1"], rel=1e-3)


def test_one_by_one_reconstructs_the_same_pictures() -> None:
    torch.manual_seed(0)
    net = AutoGAN(1, 4, "instance").eval()
    faces = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    difference = reconstruct(net, faces).int() - reconstruct_one_by_one(net, faces).int()
    assert difference.abs().max() <= 1  # a level: float rounding at a half


def test_the_loop_pool_shows_past_pictures() -> None:
    pool = ImagePool(2)
    first = torch.zeros(2, 3, 1, 1)
    assert torch.equal(pool.query(first), first)
    shown = torch.cat([pool.query(torch.full((1, 3, 1, 1), float(i))) for i in range(1, 50)])
    new = shown[:, 0, 0, 0] == torch.arange(1.0, 50.0)
    assert 0 < new.sum() < 49
    assert (shown[:, 0, 0, 0] <= torch.arange(1.0, 50.0)).all()
