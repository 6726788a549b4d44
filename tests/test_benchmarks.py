"""The benchmarks run, and the sides of a row do the same work; how fast they are decides no test."""

import math
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fakegan.data.duplicates import find_duplicates
from fakegan.data.pixels import to_unit
from fakegan.data.store import FaceStore
from fakegan.detector import reconstruct
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training.pool import ReconstructionPool
from tests.benchmarks import autoencoder, modules, scaling, startup, study
from tests.benchmarks.__main__ import CASES, main
from tests.benchmarks.baselines import TO_BYTES, TO_FLOATS, FaceArray
from tests.benchmarks.experiment import write_store
from tests.benchmarks.harness import Side, SideError, Turns, playing, take_turns
from tests.benchmarks.layers import pairs
from tests.benchmarks.made_up import smooth_faces, write_photographs
from tests.benchmarks.page import bound_table, limit_table, page, profile_table, ratio_table, scaling_table
from tests.benchmarks.results import Bound, NotMeasured, Operator, Point, Profile, Result, Row, Share
from tests.benchmarks.scaling import Memory
from tests.benchmarks.trainer import PRECISION
from tests.conftest import Compose

SLOW = ("prepare", "startup", "profiles", "scaling")  # they start processes, or train four networks


@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def test_every_case_measures(case: str) -> None:
    results = list(CASES[case](True))
    assert results
    for result in results:
        if isinstance(result, Row):
            assert len(result.ours) == len(result.theirs) == 2
            assert all(math.isfinite(ratio) and ratio > 0 for ratio in result.ratios)
        elif isinstance(result, Profile):
            shares = [operator.share for operator in result.operators]
            assert 0 < sum(shares) <= 1 + 1e-9
            assert shares == sorted(shares, reverse=True)
            assert any("conv" in operator.name for operator in result.operators)
        elif isinstance(result, Point):
            assert result.seconds > 0
    assert page(results, "A machine.", "A load.").startswith("# Benchmarks")


def _noting(turns: Turns, name: str, calls: list[tuple[str, int]]) -> None:
    turns.serve(lambda units: calls.append((name, units)))


def test_rounds_take_turns_after_a_warm_up() -> None:
    calls: list[tuple[str, int]] = []
    sides = [Side(_noting, (name, calls)) for name in "abc"]
    times = take_turns(sides, 2, (5, 3, 4), warm_up=(1, 2, 1), apart=False)
    a_round = [("a", 5), ("b", 3), ("c", 4)]
    assert calls == [("a", 1), ("b", 2), ("c", 1), *a_round, *a_round]
    assert [len(side) for side in times] == [2, 2, 2]


@pytest.fixture
def light_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sides that another process can import without torch."""
    code = """
import os
def own(turns):
    turns.wait()
    turns.done((os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")))
    turns.wait()
def ends(turns):
    turns.wait()
class OutOfMemoryError(RuntimeError):
    pass
def is_full(turns):
    raise OutOfMemoryError("tried to allocate 9 GiB")
"""
    (tmp_path / "light_sides.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import light_sides  # type: ignore[import-not-found]

    return light_sides


def test_each_side_has_a_process_of_its_own(light_sides: Any) -> None:
    with playing(Side(light_sides.own)) as a, playing(Side(light_sides.own)) as b:
        assert a.turn()[0] != b.turn()[0]


def test_only_sides_that_ask_see_gpus(light_sides: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("3", None):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
        if before is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with playing(Side(light_sides.own)) as cpu, playing(Side(light_sides.own, sees_gpus=True)) as gpu:
            assert cpu.turn()[1] == ""
            assert gpu.turn()[1] == before
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


@pytest.mark.parametrize("apart", [True, False])
def test_a_side_that_ends_early_is_named(light_sides: Any, apart: bool) -> None:
    with (
        pytest.raises(SideError, match=r"light_sides\.ends ended early$") as caught,
        playing(Side(light_sides.ends), apart) as side,
    ):
        side.turn()
    assert not caught.value.out_of_memory


@pytest.mark.parametrize("apart", [True, False])
def test_a_side_that_fails_says_why(light_sides: Any, apart: bool) -> None:
    with (
        pytest.raises(SideError, match="early: OutOfMemoryError: tried to allocate 9 GiB") as caught,
        playing(Side(light_sides.is_full), apart) as side,
    ):
        side.turn()
    assert caught.value.out_of_memory


def _side_error(kind: str) -> SideError:
    return SideError(Side(_noting), SimpleNamespace(kind=kind, message="no"))  # type: ignore[arg-type]


def test_a_gpu_too_small_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise _side_error("OutOfMemoryError")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(autoencoder, "take_turns", full)
    rows = list(autoencoder.gpu_rows(False))
    assert [type(row) for row in rows] == [NotMeasured, NotMeasured]
    assert "too little free memory" in rows[0].why  # type: ignore[union-attr]


def test_the_gpus_bar_is_of_bf16_and_float32_is_trainer_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Sequence[Side]] = []

    def timed(sides: Sequence[Side], *_: Any, **__: Any) -> list[tuple[float, ...]]:
        taken.append(sides)
        return [(1.0,), (5.0,), (2.0,)]  # ours, the study's, ours in the study's float32

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(autoencoder, "take_turns", timed)
    first, plain, *_ = autoencoder.gpu_rows(False)
    assert isinstance(first, Row)
    assert isinstance(plain, Row)
    assert (first.ratio, first.bar, plain.ratio, plain.bar) == (5.0, 4.0, 2.5, None)
    assert "bf16" in first.what
    assert "float32" in plain.what
    ours, theirs, ours_plain = taken[0]
    assert ours.arguments[1:] == ("gpu", "bf16-mixed")
    assert ours_plain.arguments[1:] == ("gpu",)  # the trainer's own precision
    assert theirs.arguments[0] == ours.arguments[0]
    assert all(side.sees_gpus for side in taken[0])


@pytest.mark.parametrize("trainer", ["cpu", "gpu", "auto", "ddp"])
def test_the_precision_is_that_of_the_trainers(compose_settings: Compose, trainer: str) -> None:
    assert compose_settings(f"trainer={trainer}").trainer.precision == PRECISION


def _one_row(quick: bool) -> Iterator[Result]:
    yield Row("a", "b", "step", (1.0,), (2.0,))


def _fails_after_a_row(error: BaseException, quick: bool) -> Iterator[Result]:
    yield Row("c", "d", "step", (1.0,), (2.0,))
    raise error


@pytest.mark.parametrize(
    ("error", "code", "reason", "measured"),
    [
        (ValueError("a hole\nin the disk"), 1, "it failed with ValueError: a hole in the disk", 3),
        (KeyboardInterrupt(), 130, "interrupted", 2),
    ],
)
def test_a_case_that_fails_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, reason: str, measured: int
) -> None:
    monkeypatch.setitem(CASES, "feed", _one_row)
    monkeypatch.setitem(CASES, "prepare", partial(_fails_after_a_row, error))
    monkeypatch.setitem(CASES, "dcgan", _one_row)
    out = tmp_path / "page.md"
    assert main(["--only", "feed", "prepare", "dcgan", "--out", str(out)]) == code
    text = out.read_text()
    assert text.count(" / step |") == 2 * measured
    assert f"- case prepare, or the rest of it: not measured: {reason}" in text
    assert ("case dcgan" in text) == (code == 130)


def test_nothing_is_written_where_nothing_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(quick: bool) -> Iterator[Result]:
        raise ValueError
        yield

    monkeypatch.setitem(CASES, "feed", fails)
    assert main(["--only", "feed", "--out", str(tmp_path / "page.md")]) == 1
    assert not (tmp_path / "page.md").exists()


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    row = Row("a", "b", "step", ours=(1.0, 2.0, 4.0), theirs=(3.0, 4.0, 40.0), bar=1.5)
    assert row.ratios == (3.0, 2.0, 10.0)
    assert row.ratio == 3.0
    line = ratio_table([row]).splitlines()[-1]
    assert line == "| a | b | 1.5x | **3.00x** | 2.00x - 10.00x | 2.00 s / step | 4.00 s / step | yes |"


def test_below_one_a_ratio_has_three_digits() -> None:
    """So that a bar of 1 / 1.15 and what misses it by little differ in print."""
    row = Row("a", "b", "step", ours=(1.0, 1.0, 1.0), theirs=(0.8664, 0.8664, 1.25), bar=1 / 1.15)
    assert "| 0.870x | **0.866x** | 0.866x - 1.25x |" in ratio_table([row])


def test_a_missed_bar_says_so() -> None:
    row = Row("a", "b", "step", ours=(1.0,), theirs=(1.4,), bar=1.5)
    share = Share("a", "copies", "batch", ours=(0.002,), theirs=(0.001,), bar=0.7)
    bound = Bound("start", "s", (8.5, 7.0, 9.0), at_most=8.0)
    assert ratio_table([row]).splitlines()[-1].endswith("| **no** |")
    assert limit_table([share]).splitlines()[-1] == (
        "| a | copies | 70% | **50%** | 50% - 50% | 2 ms / batch | 1 ms / batch | **no** |"
    )
    assert bound_table([bound]).splitlines()[-1] == "| start | 8 s | **8.5 s** | 7 - 9 | **no** |  |"
    growth = Bound("growth", "", (1.25,), at_most=1.1)
    assert bound_table([growth]).splitlines()[-1] == "| growth | 1.1 | **1.25** | - | **no** |  |"


def test_a_missed_bar_says_why_and_a_reached_one_does_not() -> None:
    why = "It rains."
    for seconds, told in ((2.0, False), (4.0, True)):
        row = Row("a", "b", "step", (seconds,), (6.0,), 3.0, why)
        share = Share("a", "b", "step", (seconds,), (2.0,), 0.6, why)
        bound = Bound("a", "s", (seconds,), 3.0, "a note", why)
        ends = [table.splitlines()[-1] for table in (ratio_table([row]), limit_table([share]), bound_table([bound]))]
        reached = "**no**: It rains." if told else "yes"
        assert [end.rsplit(" | ", 1)[1] for end in ends[:2]] == [f"{reached} |"] * 2
        assert ends[2].endswith(f"| {reached} | a note |")
    without_a_bar = Row("a", "b", "step", (1.0,), (6.0,), if_missed=why)
    assert ratio_table([without_a_bar]).splitlines()[-1].endswith(" | - |")


def test_growth_is_the_exponent_between_two_points() -> None:
    points = [Point("split", faces, seconds, 300.0, 200.0, None) for faces, seconds in ((2000, 0.5), (20000, 50.0))]
    *_, first, second = scaling_table(points).splitlines()
    bound = scaling.growth(points)
    assert bound.value == pytest.approx(2)
    assert not bound.reached
    assert first == "| split | 2,000 | 500 ms | 250 ms | - | 300 MB | 200 MB | - |"
    assert second == "| split | 20,000 | 50.00 s | 2.50 s | 2.00 | 300 MB | 200 MB | - |"


def test_flatness_is_told_only_of_memory_that_was_seen() -> None:
    few, many = Point("p", 10, 1.0, 300.0, 200.0, 80.0), Point("p", 1000, 9.0, 310.0, 250.0, 190.0)
    prepare, feed = scaling.flatness_of_prepare([few, many]), scaling.flatness_of_feed([few, many])
    assert isinstance(prepare, Bound)
    assert isinstance(feed, Bound)
    assert (prepare.value, prepare.reached, feed.value, feed.reached) == (110.0, False, 50.0, True)
    assert "its process 10, its largest worker 110" in prepare.note
    assert "RssAnon" in feed.note
    assert feed.note.endswith(": 10")
    blind = Point("p", 1000, 9.0, None, None, None)
    no_workers = Point("p", 1000, 9.0, 310.0, 250.0, None)
    for points in ([few, blind], [blind, many], [few, no_workers]):
        assert isinstance(scaling.flatness_of_prepare(points), NotMeasured)
    assert isinstance(scaling.flatness_of_feed([few, blind]), NotMeasured)
    assert scaling_table([blind]).splitlines()[-1].endswith("| - | - | - | - |")


def test_memory_is_unknown_without_the_systems_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_status", lambda process: {})
    with Memory() as memory:
        pass
    assert (memory.peak, memory.own, memory.child) == (None, None, None)


def test_a_disk_too_full_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    (result,) = scaling.rows(False)
    assert isinstance(result, NotMeasured)
    assert result.why.startswith("5.7 GB and a tenth")  # 200,000 x (2 x 12,288 + 4,096) bytes
    assert result.why.endswith("1.0 GB are free")


def test_only_known_operators_get_a_sentence() -> None:
    found = Profile("a step", "CPU", 2.0, (Operator("aten::tanh", 0.75, 1.0), Operator("aten::unknown", 0.25, 2.5)))
    assert profile_table(found).splitlines()[-2:] == [
        "| `tanh` | 75.0% | 1 | The last layer of the autoencoder and of the generator. |",
        "| `unknown` | 25.0% | 2.5 |  |",
    ]


def test_what_a_machine_cannot_run_is_one_line() -> None:
    assert page([NotMeasured("a step on a GPU", "no GPU")], "m", "l").splitlines()[-1] == (
        "- a step on a GPU: not measured: no GPU"
    )


def test_a_part_is_written_only_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.md"
    main(["--quick", "--only", "reconstruct", "--out", str(out)])
    assert "written" in capsys.readouterr().out
    assert out.read_text().count("\n| reconstruct a face, ") == 2
    out.unlink()
    main(["--quick", "--only", "reconstruct"])
    assert "written" not in capsys.readouterr().out


def copy_weights(into: nn.Module, out_of: nn.Module) -> None:
    """In order; biases of zero that the plain net lacks are left out."""
    given = iter(out_of.parameters())
    with torch.no_grad():
        for parameter in into.parameters():
            while (value := next(given)).shape != parameter.shape:
                assert not value.any()
            parameter.copy_(value)
    assert not any(value.any() for value in given)


# At width 32 the residual blocks have 128 channels, from which on they are computed by Winograd's algorithm.
@pytest.mark.parametrize(("depth", "width", "norm"), [(1, 8, True), (4, 8, True), (1, 32, True), (1, 32, False)])
def test_the_studys_autoencoder_is_ours(depth: int, width: int, norm: bool) -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    ours, plain = AutoGAN(depth, width, "instance" if norm else "none"), study.autoencoder(depth, width, norm)
    copy_weights(plain, ours)
    expected = plain(x).detach()
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=3e-4 * float(expected.std()))
    assert expected.std() > 1e-3


def test_the_studys_discriminators_are_ours() -> None:
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    for ours, plain in (
        (PatchDiscriminator(8), study.patch_discriminator(8)),
        (DCGANDiscriminator(width=8), study.dcgan_discriminator(8)),
    ):
        copy_weights(plain, ours)
        torch.testing.assert_close(plain(x), ours(x), rtol=0, atol=1e-4)
        assert ours(x).std() > 1e-3


def test_the_studys_generator_is_ours() -> None:
    noise = torch.randn(4, 100)
    ours, plain = DCGANGenerator(width=8), study.dcgan_generator(8)
    copy_weights(plain, ours)
    torch.testing.assert_close(plain(noise[:, :, None, None]), ours(noise), rtol=0, atol=1e-4)


def test_the_studys_cnn_is_ours() -> None:
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    ours, plain = SimpleCNN(), study.simple_cnn()
    nn.init.normal_(ours.head[-1].weight)  # it starts at zero
    copy_weights(plain, ours)
    torch.testing.assert_close(plain.eval()(x), ours.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pair", pairs(True), ids=lambda pair: pair.what.split("(")[0].split(",")[0])
def test_a_layer_and_its_plain_form_are_the_same(pair: Any) -> None:
    ours, plain = pair.ours(), pair.plain()
    copy_weights(plain, ours)
    x = torch.randn(pair.shape)
    torch.testing.assert_close(plain(x), ours(x), rtol=0, atol=1e-4)


class _Losses(pl.Callback):
    """The losses of each step, out of the module's running means."""

    def __init__(self, *names: str) -> None:
        self.sums: list[dict[str, float]] = [dict.fromkeys(names, 0.0)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        means: dict[str, Tensor] = module.train_means.compute()
        self.sums.append({name: float(means[name]) * (batch_idx + 1) for name in self.sums[0]})

    def steps(self) -> list[dict[str, float]]:
        return [{name: after[name] - before[name] for name in after} for before, after in pairwise(self.sums)]


def _fit(module: pl.LightningModule, batches: list[dict[str, Tensor]], *callbacks: pl.Callback) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "batch"), [(4, 4), (32, 2)])
def test_the_studys_step_and_ours_compute_the_same(width: int, batch: int) -> None:
    torch.manual_seed(0)
    module = modules.autoencoder(1, width)
    module.pool = ReconstructionPool(0)
    generator, discriminator = study.autoencoder(1, width), study.patch_discriminator(width)
    copy_weights(generator, module.autoencoder)
    copy_weights(discriminator, module.discriminator)
    batches = [torch.rand(batch, 3, 64, 64) * 2 - 1 for _ in range(3)]

    step = study.AutoencoderStep(generator, discriminator, pool_size=0)
    theirs = [{name: float(value) for name, value in step(real).items()} for real in batches]
    losses = _Losses("l1", "adversarial", "discriminator")
    _fit(module, [{"image": real} for real in batches], losses)

    ours = losses.steps()
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-3)  # after two steps of both networks
    assert theirs[2]["adversarial"] != pytest.approx(theirs[0]["adversarial"], rel=1e-2)


class _SameNoise(pl.Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        torch.manual_seed(5)


def test_the_studys_dcgan_step_and_ours_begin_alike() -> None:
    """The study's D learns before G, ours after it: with a rate of 0 for D even G's loss is the same."""
    module = modules.dcgan(4)
    generator, discriminator = study.dcgan_generator(4), study.dcgan_discriminator(4)
    copy_weights(generator, module.generator)
    copy_weights(discriminator, module.net)
    x, label = torch.rand(6, 3, 64, 64) * 2 - 1, torch.arange(6) % 2

    step = study.DCGANStep(generator, discriminator)
    step.opt_disc.param_groups[0]["lr"] = 0.0
    torch.manual_seed(5)
    theirs = {name: float(value) for name, value in step(x, label).items()}
    losses = _Losses("loss", "discriminator_loss", "generator_loss")
    _fit(module, [{"x": x, "label": label}], losses, _SameNoise())

    (ours,) = losses.steps()
    assert ours["loss"] == pytest.approx(theirs["labelled"], rel=1e-5)
    assert ours["discriminator_loss"] == pytest.approx((theirs["labelled"] + theirs["samples"]) / 2, rel=1e-5)
    assert ours["generator_loss"] == pytest.approx(theirs["generator"], rel=1e-5)
    assert len({round(loss, 4) for loss in theirs.values()}) == 3


def _same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """In float64 to 1e-9: Adam divides each gradient by its own size, rounding with it where one is nearly 0."""
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def _least_movement(before: nn.Module, after: nn.Module) -> float:
    """Of the weights of any one layer, but for biases: those that a norm subtracts again stay."""
    pairs_of_weights = zip(before.parameters(), after.parameters(), strict=True)
    return min(float((now - then).detach().abs().max()) for then, now in pairs_of_weights if now.ndim > 1)


def test_three_updates_of_the_cnn_are_those_of_the_bare_loop() -> None:
    optimized = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1, fused=True)
    module = modules.simple_cnn(optimized, dropout=0.0).double()
    nn.init.normal_(module.net.head[-1].weight, std=0.01)  # type: ignore[union-attr, index, arg-type]
    plain = study.simple_cnn().double()
    plain[8].p = 0.0  # type: ignore[assignment]
    copy_weights(plain, module.net)
    batches = [(torch.rand(6, 3, 64, 64).double() * 2 - 1, torch.arange(6) % 2) for _ in range(3)]

    optimizer = torch.optim.AdamW(plain.parameters(), 1e-3, weight_decay=0.1, fused=False, foreach=False)
    before = deepcopy(plain)
    for x, label in batches:
        study.classifier_step(plain, optimizer, x, label)
    _fit(module, [{"x": x, "label": label} for x, label in batches])

    _same_weights(module.net, plain)
    assert _least_movement(before, plain) > 1e-3


def test_three_updates_of_dcgan_are_those_of_a_plain_loop() -> None:
    """In our order, G before D; the study's is the other. Its nets have no bias at either end, so these are copies."""
    module = modules.dcgan(4).double()
    generator, discriminator = deepcopy(module.generator), deepcopy(module.net)
    discriminator._forward_pre_hooks.clear()  # torch's own memory layout
    batches = [(torch.rand(6, 3, 64, 64).double() * 2 - 1, torch.arange(6) % 2) for _ in range(3)]

    opt_gen, opt_disc = (
        torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999), fused=False, foreach=False)
        for net in (generator, discriminator)
    )
    before = deepcopy((generator, discriminator))
    real, fake = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    for x, label in batches:
        torch.manual_seed(5)
        samples = generator(torch.randn(6, 100).double())
        opt_gen.zero_grad()
        F.cross_entropy(discriminator(samples), real).backward()
        opt_gen.step()
        opt_disc.zero_grad()
        on_samples = F.cross_entropy(discriminator(samples.detach()), fake)
        ((F.cross_entropy(discriminator(x), label) + on_samples) / 2).backward()
        opt_disc.step()
    module.generator.register_forward_pre_hook(lambda net, noise: (noise[0].double(),))
    _fit(module, [{"x": x, "label": label} for x, label in batches], _SameNoise())

    _same_weights(module.generator, generator)
    _same_weights(module.net, discriminator)
    assert min(_least_movement(*nets) for nets in zip(before, (generator, discriminator), strict=True)) > 1e-4


@pytest.mark.parametrize(("draws_again", "draws"), [(True, 2), (False, 1)])
def test_the_studys_dcgan_step_trains_both_networks(draws_again: bool, draws: int) -> None:
    generator, discriminator = study.dcgan_generator(2), study.dcgan_discriminator(2)
    drawn: list[int] = []
    generator.register_forward_hook(lambda net, noise, samples: drawn.append(len(samples)))
    before = [net[0].weight.clone() for net in (generator, discriminator)]
    losses = study.DCGANStep(generator, discriminator, draws_again)(torch.rand(4, 3, 64, 64), torch.arange(4) % 2)
    assert drawn == [4] * draws
    assert all(abs(float(loss) - math.log(2)) < 0.5 for loss in losses.values())  # nobody knows anything yet
    assert all(not torch.equal(net[0].weight, w) for net, w in zip((generator, discriminator), before, strict=True))


def test_flops_are_those_of_the_maths() -> None:
    ends, inner = 2 * 64**2 * 49 * 3, 2 * 32**2 * 2 * 9 + 2 * 16**2 * 4 * 2 * 9  # 7x7 to or from RGB; both that halve
    block, ups = 2 * (2 * 16**2 * 4 * 4 * 9), 2 * 32**2 * 2 * 4 * 9 + 2 * 64**2 * 2 * 9
    autoencoder = 2 * ends + inner + block + ups
    assert study.reconstruction_flops(1, 1) == autoencoder
    first = 2 * 32**2 * 3 * 16
    discriminator = first + 3 * (2 * 16**2 * 2 * 16) + 2 * 4**2 * 8 * 16
    # Gradients cost what the forward pass does, towards weights and towards inputs; none is taken of the pictures,
    # and none of the discriminator's weights where it judges for the autoencoder.
    step = 3 * autoencoder - ends + 2 * discriminator + 2 * (3 * discriminator - first)
    assert study.autoencoder_step_flops(1, 1, 5) == 5 * step


def test_flops_of_the_classifiers_are_those_of_the_maths() -> None:
    first, inner, linear = 2 * 58**2 * 49 * 3 * 16, 2 * 27**2 * 9 * 16 * 16, 2 * (16 * 27 * 27) * 2
    assert study.classifier_step_flops(3) == 3 * (3 * (first + inner + linear) - first)
    # Kernels of 4x4; a transposed convolution multiplies at each pixel of its input.
    from_noise, to_rgb, between = 2 * 16 * 100 * 8, 2 * 32**2 * 16 * 3, (4**2 * 8 * 4 + 8**2 * 4 * 2 + 16**2 * 2 * 1)
    generator = from_noise + 2 * 16 * between + to_rgb
    discriminator = to_rgb + 2 * 16 * between + 2 * 16 * 8 * 2
    # No gradient of the noise and of the pictures, nor of D's weights where it judges for G.
    step = 3 * generator - from_noise + 2 * discriminator + 2 * (3 * discriminator - to_rgb)
    assert study.dcgan_step_flops(1, 3) == 3 * step


def test_one_by_one_reconstructs_the_same_pictures() -> None:
    torch.manual_seed(0)
    net, plain = AutoGAN(1, 4, "instance").eval(), study.autoencoder(1, 4).eval()
    copy_weights(plain, net)
    faces = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    difference = reconstruct(net, faces).int() - study.reconstruct_one_by_one(plain, faces).int()
    assert difference.abs().max() <= 1  # a level: float rounding at a half


@pytest.mark.parametrize("to_floats", [False, True])
def test_a_dataset_of_pil_images_gives_the_faces_that_ours_gives(tmp_path: Path, to_floats: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    data = FaceArray(images, TO_FLOATS if to_floats else TO_BYTES)
    assert len(data) == 4
    for i in range(4):
        seen = data[i][0]
        face = to_unit(torch.from_numpy(images[i : i + 1]))[0] if to_floats else torch.from_numpy(images[i])
        expected = face if to_floats else face.permute(2, 0, 1)
        flipped = expected.flip(2) if to_floats else expected
        assert seen.dtype == expected.dtype
        assert min(float((seen - x).abs().max()) for x in (expected, flipped)) < 1e-6


def test_the_loop_pool_shows_past_pictures() -> None:
    pool = study.ImagePool(2)
    first = torch.zeros(2, 3, 1, 1)
    assert torch.equal(pool.query(first), first)
    shown = torch.cat([pool.query(torch.full((1, 3, 1, 1), float(i))) for i in range(1, 50)])
    new = shown[:, 0, 0, 0] == torch.arange(1.0, 50.0)
    assert 0 < new.sum() < 49
    assert (shown[:, 0, 0, 0] <= torch.arange(1.0, 50.0)).all()


def test_frames_of_a_made_up_film_are_near_copies() -> None:
    rng = np.random.default_rng(0)
    hashes, thumbs = rng.integers(0, 2**63, 3, dtype=np.uint64), rng.integers(0, 256, (3, 64), dtype=np.uint8)
    count = 2 * scaling.FRAMES + 20  # the third film is short
    frames, looks = scaling.film_frames(hashes, thumbs, count)
    keys = np.arange(count)
    found = find_duplicates(keys, keys, keys, frames, looks, keys % 2)
    assert found.first.tolist() == [row // scaling.FRAMES * scaling.FRAMES for row in range(count)]
    assert found.near.sum() == count - 3
    _, first, again = np.unique(frames, return_index=True, return_inverse=True)
    to_first = np.count_nonzero(keys % 2 != first[again] % 2)  # frames of equal hash
    kept = np.histogram2d(first // scaling.FRAMES, first % 2, (3, 2))[0]  # by film and class
    assert found.both_classes == to_first + kept.prod(axis=1).sum()


def test_made_up_pictures_differ(tmp_path: Path) -> None:
    (faces,) = smooth_faces(300)
    assert faces.shape == (300, 64, 64, 3)
    assert len({face.tobytes() for face in faces}) == 300
    grey = faces.mean(axis=3).reshape(300, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(300, 64)
    resemblance = np.corrcoef(grey)[np.triu_indices(300, 1)]
    assert 0.1 < resemblance.mean() < 0.4  # 0.12 of aligned photographs (CelebA)
    assert resemblance.max() < 0.98  # no near copies
    write_photographs(tmp_path, 60, (96, 80))
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == 60
    assert {Image.open(file).size for file in files} == {(96, 80)}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_sees_its_own() -> None:
    with Memory() as memory:
        time.sleep(0.1)
        before = memory.own
        block = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # not malloc's, which reuses
        for _ in range(100):
            block.write(b"1" * 1_000_000)
        time.sleep(0.1)
    assert before is not None
    assert memory.own is not None
    assert memory.peak is not None
    assert 95 < memory.own - before < 130
    assert memory.peak > memory.own - 5  # the kernel counts in steps of some pages a thread
    block.close()


def test_made_up_stores_are_stores(tmp_path: Path) -> None:
    write_store(tmp_path / "faces", 3, 3)
    store = FaceStore.open(tmp_path / "faces")
    assert list(store.labels) == [0, 0, 0, 1, 1, 1]
    assert len({face.tobytes() for face in store.images}) == 6
    assert [int(face.std()) > 5 for face in np.asarray(store.images)] == [True] * 6


@pytest.mark.slow
def test_the_clock_stops_at_the_first_step(tmp_path: Path) -> None:
    """A run of its own folder has begun to train and has not come further."""
    words = ["+debug=fast", "trainer=cpu", *startup._folders(str(tmp_path))]
    assert startup._first_step(words, str(tmp_path / "run")) > 0
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not list(tmp_path.rglob("autoencoder.pt"))


def test_a_command_that_ends_otherwise_is_not_timed() -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        startup._run(["-S", "-c", "raise SystemExit(3)"], 7)
