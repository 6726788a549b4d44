"""The benchmarks run, and the sides of a row do the same work; how fast they are decides no test."""

import math
import mmap
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fakegan.detector import reconstruct
from fakegan.modules.autoencoder import AdversarialAutoencoder
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from tests.benchmarks import study
from tests.benchmarks.__main__ import CASES, main
from tests.benchmarks.autoencoder import STUDY
from tests.benchmarks.harness import Side, Turns, playing, take_turns
from tests.benchmarks.made_up import smooth_faces, write_photographs
from tests.benchmarks.page import bound_table, limit_table, page, profile_table, ratio_table, scaling_table
from tests.benchmarks.results import Bound, NotMeasured, Operator, Point, Profile, Row, Share
from tests.benchmarks.scaling import Memory

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
            assert 0.5 < sum(operator.share for operator in result.operators) <= 1 + 1e-9
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
    code = "import os\ndef pid(turns):\n    turns.wait()\n    turns.done(os.getpid())\n    turns.wait()\n"
    code += "def fails(turns):\n    turns.wait()\n"
    (tmp_path / "light_sides.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import light_sides  # type: ignore[import-not-found]

    return light_sides


def test_each_side_has_a_process_of_its_own(light_sides: Any) -> None:
    with playing(Side(light_sides.pid)) as a, playing(Side(light_sides.pid)) as b:
        assert a.turn() != b.turn()


def test_a_side_that_ends_early_is_named(light_sides: Any) -> None:
    with pytest.raises(RuntimeError, match=r"light_sides\.fails ended early"), playing(Side(light_sides.fails)) as side:
        side.turn()


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    row = Row("a", "b", "step", ours=(1.0, 2.0, 4.0), theirs=(3.0, 4.0, 40.0), bar=1.5)
    assert row.ratios == (3.0, 2.0, 10.0)
    assert row.ratio == 3.0
    line = ratio_table([row]).splitlines()[-1]
    assert line == "| a | b | 1.5x | **3.00x** | 2.00x - 10.00x | 2.00 s / step | 4.00 s / step | yes |"


def test_a_missed_bar_says_so() -> None:
    row = Row("a", "b", "step", ours=(1.0,), theirs=(1.4,), bar=1.5)
    share = Share("a", "copies", "batch", ours=(0.002,), theirs=(0.001,), bar=0.7)
    bound = Bound("start", "s", (8.5, 7.0, 9.0), at_most=8.0)
    assert ratio_table([row]).splitlines()[-1].endswith("| **no** |")
    assert limit_table([share]).splitlines()[-1] == (
        "| a | copies | 70% | **50%** | 50% - 50% | 2 ms / batch | 1 ms / batch | **no** |"
    )
    assert bound_table([bound]).splitlines()[-1] == "| start | 8 s | **8.5 s** | 7 - 9 | **no** |  |"


def test_growth_is_the_exponent_between_two_points() -> None:
    points = [Point("split", faces, seconds, 300.0, 200.0, 0.0) for faces, seconds in ((2000, 0.5), (20000, 50.0))]
    *_, first, second = scaling_table(points).splitlines()
    assert first == "| split | 2,000 | 500 ms | 250 ms | - | 300 MB | 200 MB | - |"
    assert second == "| split | 20,000 | 50.00 s | 2.50 s | 2.00 | 300 MB | 200 MB | - |"


def test_only_known_operators_get_a_sentence() -> None:
    found = Profile("a step", "CPU", 2.0, (Operator("aten::tanh", 0.75, 1.0), Operator("aten::unknown", 0.25, 2.5)))
    assert profile_table(found).splitlines()[-2:] == [
        "| `tanh` | 75.0% | 1 | The last layer of a generator. |",
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
    assert out.read_text().count("\n| reconstruct in batches of 8") == 2
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


@pytest.mark.parametrize("depth", [1, 4])
def test_the_studys_autoencoder_is_ours(depth: int) -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    ours, plain = AutoGAN(depth, 8, "instance"), study.autoencoder(depth, 8)
    copy_weights(plain, ours)
    torch.testing.assert_close(plain(x), ours(x), rtol=0, atol=1e-4)
    assert ours(x).std() > 0.01


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


def test_the_studys_step_and_ours_compute_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AdversarialAutoencoder(1, 4, pool_size=0, **STUDY)
    generator, discriminator = study.autoencoder(1, 4), study.patch_discriminator(4)
    copy_weights(generator, module.autoencoder)
    copy_weights(discriminator, module.discriminator)
    batches = [torch.rand(4, 3, 64, 64) * 2 - 1 for _ in range(3)]

    step = study.AutoencoderStep(generator, discriminator, pool_size=0)
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


def test_one_by_one_reconstructs_the_same_pictures() -> None:
    torch.manual_seed(0)
    net, plain = AutoGAN(1, 4, "instance").eval(), study.autoencoder(1, 4).eval()
    copy_weights(plain, net)
    faces = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    difference = reconstruct(net, faces).int() - study.reconstruct_one_by_one(plain, faces).int()
    assert difference.abs().max() <= 1  # a level: float rounding at a half


def test_the_loop_pool_shows_past_pictures() -> None:
    pool = study.ImagePool(2)
    first = torch.zeros(2, 3, 1, 1)
    assert torch.equal(pool.query(first), first)
    shown = torch.cat([pool.query(torch.full((1, 3, 1, 1), float(i))) for i in range(1, 50)])
    new = shown[:, 0, 0, 0] == torch.arange(1.0, 50.0)
    assert 0 < new.sum() < 49
    assert (shown[:, 0, 0, 0] <= torch.arange(1.0, 50.0)).all()


def test_made_up_pictures_differ(tmp_path: Path) -> None:
    (faces,) = smooth_faces(300)
    assert faces.shape == (300, 64, 64, 3)
    assert len({face.tobytes() for face in faces}) == 300
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
    assert 95 < memory.own - before < 130
    assert memory.peak >= memory.own
    block.close()
