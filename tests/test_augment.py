"""Augmented faces: each change by hand, draws of seed, epoch and face alone, labels of mixtures, what is refused."""

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fakegan.data import degrade
from fakegan.data.augment import Augment, moved
from fakegan.data.degrade import Degrade
from fakegan.data.draws import Draws, face_keys
from fakegan.data.sheets import read_png
from fakegan.data.store import FaceStore
from fakegan.errors import UsageError
from fakegan.nets.losses import dcgan_discriminator_loss
from fakegan.runs import config_file
from fakegan.stages import run as stages
from fakegan.system import ranks
from fakegan.training.callbacks import AugmentedFaces
from fakegan.training.classifier import Classifier, over_labels
from tests.conftest import Compose
from tests.helpers import adam, fit, real_and_fake

EVERYTHING = {
    **{"brightness": (0.7, 1.3), "contrast": (0.7, 1.3), "blur": (0.3, 1.5)},
    **{"resize": (0.5, 0.95), "noise": (1, 8), "jpeg": (40, 95)},
}


def _draws(faces: int, seed: int = 0) -> Draws:
    return Draws(face_keys(np.arange(faces), seed, epoch=0))


def _always(change: str, strength: float, levels: Any) -> np.ndarray:
    """Levels of 255 (H, W) of a grey face after one change of a certain strength."""
    picture = torch.as_tensor(levels, dtype=torch.float64).expand(1, 3, -1, -1) / 127.5 - 1
    out = Degrade(probability=1, **{change: (strength, strength)})(picture, _draws(1))
    return ((out[0, 1] + 1) * 127.5).numpy()


def test_keys_are_the_bits_that_have_mirrored_faces_since_the_beginning() -> None:
    """splitmix64 in Python's integers, at seeds and rows that fill all bits."""

    def expected(row: int, seed: int, epoch: int) -> int:
        bits = 2**64 - 1
        z = (row * 0x9E3779B97F4A7C15 + seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03) & bits
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
        return z ^ (z >> 31)

    rows = np.array([0, 1, 5, 2**40 + 3])
    for seed, epoch in ((0, 0), (1, 7), (2**32 - 1, 399)):
        keys = [key & (2**64 - 1) for key in face_keys(rows, seed, epoch).tolist()]
        assert keys == [expected(row, seed, epoch) for row in rows.tolist()]


def test_draws_are_uniform_or_normal_and_never_repeat() -> None:
    draws = _draws(20_000)
    numbers = torch.stack([*draws.uniform(2).T, draws.between(2, 4) / 2 - 1, draws.of(torch.arange(20_000)).uniform()])
    assert 0 < numbers.min() < numbers.max() < 1
    assert numbers.mean(dim=1).tolist() == pytest.approx([0.5] * 4, abs=0.01)
    assert numbers.std(dim=1).tolist() == pytest.approx([math.sqrt(1 / 12)] * 4, abs=0.01)
    assert (torch.corrcoef(numbers) - torch.eye(4)).abs().max() < 0.03
    normal = draws.normal(3)
    assert (float(normal.mean()), float(normal.std())) == pytest.approx((0, 1), abs=0.02)


def test_shifted_by_one_pixel_to_the_right_and_two_up() -> None:
    faces = torch.rand(2, 3, 8, 8)
    out = moved(faces, torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.ones(2))
    torch.testing.assert_close(out[0, :, :6, 1:], faces[0, :, 2:, :7])
    torch.testing.assert_close(out[0, :, :6, 0], faces[0, :, 2:, 0])  # the border reflected
    torch.testing.assert_close(out[1], faces[1])


def test_twice_as_large_about_the_centre() -> None:
    line = torch.tensor([0.0, 1, 2, 3]).expand(1, 1, 4, 4)
    out = moved(line, torch.zeros(1, 2), torch.tensor([2.0]))
    torch.testing.assert_close(out, torch.tensor([0.75, 1.25, 1.75, 2.25]).expand(1, 1, 4, 4))


def test_shifts_are_whole_pixels_of_all_sizes_and_a_share_is_scaled() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(500, 3, 64, 64).contiguous()  # 2/63 a pixel
    shifted = Augment(shift=2)({"image": ramp, "recon": ramp}, _draws(500))
    steps = (ramp - shifted["image"])[:, 0, 30, 30] * 63 / 2
    assert set(steps.round(decimals=3).tolist()) == {-2, -1, 0, 1, 2}
    assert torch.equal(shifted["image"], shifted["recon"])  # a reconstruction moves with its face
    scaled = Augment(scale=0.1, scaled=0.25)({"image": ramp}, _draws(500))["image"]
    slopes = (scaled[:, 0, 30, 33] - scaled[:, 0, 30, 30]) / (ramp[:, 0, 30, 33] - ramp[:, 0, 30, 30])
    assert 0.18 < ((slopes - 1).abs() > 1e-3).float().mean() < 0.32
    assert 1 / 1.101 < slopes.min() < slopes.max() < 1 / 0.899


def test_brightness_and_contrast_by_hand() -> None:
    levels = [[100.0, 200.0]]
    assert _always("brightness", 1.2, levels) == pytest.approx(np.array([[120, 240]]))
    assert _always("brightness", 1.5, levels) == pytest.approx(np.array([[150, 255]]))  # white is the end
    assert _always("contrast", 0.5, levels) == pytest.approx(np.array([[125, 175]]), abs=0.02)  # about their mean, 150


def test_blur_is_a_gaussian() -> None:
    point = np.zeros((17, 17))
    point[8, 8] = 255
    out = _always("blur", 1.0, point)
    assert out[8, 9] / out[8, 8] == pytest.approx(math.exp(-0.5))
    assert out[7, 10] / out[8, 8] == pytest.approx(math.exp(-2.5))
    assert out.sum() == pytest.approx(255, rel=1e-3)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.93])
def test_resized_as_torch_does_it_twice(share: float) -> None:
    face = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    small = interpolate(face, size=(round(share * 64),) * 2, mode="bilinear", antialias=True)
    expected = interpolate(small, size=(64, 64), mode="bilinear")
    out = Degrade(probability=1, resize=(share, share))(face, _draws(1))
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)


def test_noise_has_its_deviation_and_is_each_faces_own() -> None:
    out = Degrade(probability=1, noise=(5, 5))(torch.zeros(2, 3, 64, 64), _draws(2)) * 127.5
    assert out.std(dim=(1, 2, 3)).tolist() == pytest.approx([5, 5], rel=0.02)
    assert abs(float((out[0] * out[1]).mean())) < 0.5
    assert out[0].std(dim=0).mean() > 3  # of the colours, too


def test_a_jpeg_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=50)
    face = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    out = Degrade(probability=1, jpeg=(50, 50))(face, _draws(1))
    levels = ((out[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(levels - np.asarray(Image.open(content)).astype(float)).max() <= 1  # of the libraries' rounding


def test_each_change_meets_its_share_of_the_faces() -> None:
    faces = torch.rand(1000, 3, 4, 4) * 0.5
    before = faces.clone()
    for change in ("brightness", "contrast", "noise"):
        strengths: Any = {change: {"noise": (5, 5)}.get(change, (0.5, 0.5))}
        out = Degrade(probability=0.2, **strengths)(faces, _draws(1000, seed=3))
        assert 0.16 < (out != faces).flatten(1).any(1).float().mean() < 0.24, change
    assert torch.equal(faces, before)
    assert torch.equal(Degrade(probability=0, **EVERYTHING)(faces, _draws(1000)), faces)


@pytest.mark.parametrize("size", [64, 32])
def test_a_face_is_changed_alike_among_any_others(size: int) -> None:
    """To the bit: so neither the number of processes nor a resumed epoch changes what is learnt."""
    augment = Augment(shift=4, scale=0.1, degrade=Degrade(probability=0.5, **EVERYTHING))  # type: ignore[arg-type]
    faces, keys = torch.rand(12, 3, size, size) * 2 - 1, face_keys(np.arange(12), 1, 2)
    whole = augment({"image": faces}, Draws(keys))["image"]
    assert whole.abs().max() <= 1
    assert not any(torch.equal(a, b) for a, b in zip(whole, faces, strict=True))
    for count in (2, 3, 12):
        for rank in range(count):
            own = augment({"image": faces[rank::count]}, Draws(keys[rank::count]))["image"]
            assert torch.equal(own, whole[rank::count]), (rank, count)


def test_mixup_of_two_known_pictures() -> None:
    black, white, shares = -torch.ones(2, 3, 8, 8), torch.ones(2, 3, 8, 8), []
    for batch in range(200):
        mixed, share = Augment(mixup=1).mix(black, white, _draws(1, batch))
        torch.testing.assert_close(mixed, (2 * share - 1).expand(2, 3, 8, 8))
        shares.append(float(share))
    assert 0 < min(shares) < 0.05
    assert 0.45 < max(shares) < 0.5


def test_cutmixs_box_is_the_labels_share() -> None:
    black, white, areas = -torch.ones(2, 3, 64, 64), torch.ones(2, 3, 64, 64), []
    for batch in range(100):
        mixed, share = Augment(cutmix=1).mix(black, white, _draws(1, batch))
        box = mixed[0, 0] == 1
        rows, columns = box.any(1).sum(), box.any(0).sum()
        assert box.sum() == rows * columns == round(float(share) * 64 * 64)
        assert rows == columns
        assert torch.equal(mixed[1, 2] == 1, box)
        areas.append(float(share))
    assert min(areas) < 0.05
    assert 0.45 < max(areas) <= 0.51


def test_batches_are_mixed_by_their_probabilities() -> None:
    black, white, kinds = -torch.ones(1, 1, 64, 64), torch.ones(1, 1, 64, 64), {"not": 0, "box": 0, "all": 0}
    for batch in range(1000):
        mixed, share = Augment(mixup=0.5, cutmix=0.3).mix(black, white, _draws(1, batch))
        inside = int((mixed > -1).sum())
        kinds["not" if not share else "all" if inside == 64 * 64 else "box"] += 1
    assert kinds == {
        "not": pytest.approx(200, abs=40),
        "box": pytest.approx(300, abs=50),
        "all": pytest.approx(500, abs=50),
    }


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_mix_what_one_mixes(store: FaceStore, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The partner of a process's face may be another's: faces, labels and share are the same to the bit."""
    changes: Any = {"shift": 2, "mixup": 0.6, "cutmix": 0.4, "degrade": Degrade(noise=(3, 5), jpeg=(50, 90))}

    def batches(rank: int, count: int) -> list[dict[str, Tensor]]:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        monkeypatch.setattr(ranks, "count", lambda: count)
        data = real_and_fake(store, **changes)
        return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]

    whole = batches(0, 1)
    assert all(set(batch) == {"x", "label", "row", "other_label", "other_share"} for batch in whole)
    assert any((batch["label"] != batch["other_label"]).any() for batch in whole)
    for rank in range(count):
        for own, all_ in zip(batches(rank, count), whole, strict=True):
            assert torch.equal(own.pop("other_share"), all_["other_share"])
            for name, values in own.items():
                assert torch.equal(values, all_[name][rank::count]), name


def test_validation_faces_are_never_changed(store: FaceStore) -> None:
    changed, plain = (real_and_fake(store, **words) for words in ({"shift": 4, "mixup": 1.0, "flip": False}, {}))
    seen = [data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0) for data in (changed, plain)]
    assert seen[0].keys() == seen[1].keys() == {"x", "label", "row"}
    assert torch.equal(seen[0]["x"], seen[1]["x"])
    assert not torch.cat([batch["flip"] for batch in changed.train_dataloader()]).any()


def test_the_loss_of_a_mixture_is_the_mean_over_both_labels() -> None:
    logits, share = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor(0.25)
    batch = {"x": logits, "label": torch.tensor([0, 0]), "other_label": torch.tensor([0, 1]), "other_share": share}
    module = Classifier(nn.Identity(), adam())
    _, loss = module._step(batch)
    real, fake = math.log1p(math.exp(-2)), math.log1p(math.exp(2))  # of the second face
    assert float(loss) == pytest.approx((math.log(2) + 0.75 * real + 0.25 * fake) / 2)
    soft = torch.tensor([[1.0, 0.0], [0.75, 0.25]])
    assert float(loss) == pytest.approx(float(nn.functional.cross_entropy(logits, soft)))
    accuracy = over_labels(batch, lambda label: (logits.argmax(dim=1) == label).float().mean())
    assert float(accuracy) == pytest.approx((1 + 0.75) / 2)
    with_samples = over_labels(batch, lambda label: dcgan_discriminator_loss(logits, label, torch.zeros(3, 2)))
    assert float(with_samples) == pytest.approx((float(loss) + math.log(2)) / 2)


def test_a_classifier_learns_from_mixtures(store: FaceStore) -> None:
    from fakegan.nets.simple_cnn import SimpleCNN

    metrics = fit(
        Classifier(SimpleCNN(), adam(1e-3)), real_and_fake(store, mixup=0.5, shift=1), epochs=4
    ).callback_metrics
    assert metrics["val/auroc"] > 0.9
    assert metrics["train/loss"] > 0.1  # a mixture of both kinds has no certain label


@pytest.mark.parametrize("changes", [{"mixup": 1.0, "shift": 2}, {}], ids=["augmented", "none"])
def test_the_first_batch_is_shown_where_it_is_changed(store: FaceStore, tmp_path: Path, changes: Any) -> None:
    logged: list[tuple[str, int]] = []
    writer: Any = SimpleNamespace(
        log_image=lambda name, pictures, step: logged.append((name, step)), experiment=None, save_dir=None
    )
    callback = AugmentedFaces(tmp_path, faces=5)
    data = real_and_fake(store, **changes)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    for epoch, step in ((0, 0), (0, 1), (1, 0)):
        at: Any = SimpleNamespace(is_global_zero=True, current_epoch=epoch, datamodule=data, loggers=[writer])
        callback.on_train_batch_start(at, nn.Identity(), batch, step)  # type: ignore[arg-type]
    assert logged == ([("augmented", 0)] if changes else [])
    if changes:
        page = read_png(tmp_path / "augmented_000.png")
        assert page.shape == (2 * 66 + 2, 96 + 5 * 66 + 2, 3)
        for kind in (0, 1):
            face = ((batch["x"][batch["label"] == kind][0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
            assert np.array_equal(page[2 + 66 * kind : 66 + 66 * kind, 98:162], face)


def test_a_data_module_may_call_anything_of_its_own_augment(tmp_path: Path) -> None:
    own = SimpleNamespace(augment=lambda faces: faces)
    at: Any = SimpleNamespace(is_global_zero=True, current_epoch=0, datamodule=own, loggers=[])
    AugmentedFaces(tmp_path).on_train_batch_start(at, nn.Identity(), {}, 0)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("augment.mixup=0.9 augment.cutmix=0.3", "augment.mixup=0.9 and cutmix=0.3 are more than all batches"),
        ("augment.scale=1", "augment.scale=1 must be from 0 to below 1"),
        ("augment.scaled=2", "augment.scaled=2 must be from 0 to 1"),
        ("augment=robust augment.degrade.jpeg=[90,20]", r"degrade.jpeg=\[90, 20\] must be two numbers from 1 to 100"),
        ("augment.shift=64", r"augment\.shift=64 must be below 64, the pixels of a side"),
        ("augment=robust augment.degrade.blur=[1]", r"degrade.blur=\[1\] must be two numbers"),
        ("augment=robust augment.degrade.probability=2", "augment.degrade.probability=2 must be from 0 to 1"),
        ("augment._target_=torch.nn.Identity", "torch.nn.Identity makes no Augment"),
        ("augment.degrade._target_=torch.nn.Flatten", "augment.degrade._target_=torch.nn.Flatten cannot take"),
        ("augment=robust pipeline=residual_classify", "pipeline.view=residual needs .* choose augment=light, or"),
        ("augment=robust pipeline=recon_fakes", ""),
        ("augment=light pipeline=stack_classify", ""),
        ("augment=light classifier=dcgan", ""),
        ("augment=light classifier._target_=tests.odd_parts.OwnStep", "does not say that it learns both labels"),
        ("augment.shift=2 classifier._target_=tests.odd_parts.OwnStep", ""),
        ("augment=light data.modules.classifier._target_=tests.odd_parts.NoAugment", "has no option `augment`"),
        ("data.modules.classifier._target_=tests.odd_parts.NoAugment", ""),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_trains(
    compose_settings: Compose, words: str, sentence: str
) -> None:
    settings = compose_settings(*(["pipeline=classify"] if "pipeline" not in words else []), *words.split())
    if not sentence:
        stages.try_networks(settings)
        return
    with pytest.raises(UsageError, match=sentence) as caught:
        stages.try_networks(settings)
    assert "\n" not in str(caught.value)


def test_a_degradation_without_a_class_says_where_there_is_one(compose_settings: Compose) -> None:
    with pytest.raises(UsageError, match=r"augment\.degrade has no class: choose augment=robust, or add augment\.degr"):
        compose_settings("pipeline=classify", "augment.degrade.jpeg=[30,50]")


def test_a_run_that_knows_no_augmentation_is_one_of_none(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=classify")
    config_file.write_down(settings, settings.paths.run_dir)
    path = settings.paths.run_dir / "config.yaml"
    text = path.read_text()
    begin = text.index("\naugment:")
    path.write_text(text[:begin] + text[text.index("\nlogger:", begin) :])
    before = config_file.read_run(str(settings.paths.run_dir))
    assert before.repeats(settings)
    assert before.label() == settings.label() == "classify · simple_cnn"
    light = compose_settings("pipeline=classify", "augment=light")
    assert not light.repeats(settings)
    assert light.label() == "classify · simple_cnn · light"
    assert compose_settings("pipeline=recon_error", "augment=light").repeats(compose_settings("pipeline=recon_error"))


def test_a_change_of_ones_own_gets_faces_and_draws(store: FaceStore) -> None:
    class Inverted(nn.Module):
        def forward(self, faces: Tensor, draws: Draws) -> Tensor:
            return faces * torch.where(draws.uniform() < 0.5, -1, 1).view(-1, 1, 1, 1)

    data, plain = real_and_fake(store, degrade=Inverted()), real_and_fake(store)
    out, before = (d.on_after_batch_transfer(next(iter(d.train_dataloader())), 0)["x"] for d in (data, plain))
    inverted = [bool(torch.equal(a, -b)) for a, b in zip(out, before, strict=True)]
    assert any(inverted)
    assert not all(inverted)
    assert all(torch.equal(a, b) for a, b, is_inverted in zip(out, before, inverted, strict=True) if not is_inverted)


def test_degradations_hold_in_the_order_of_the_options() -> None:
    names = [change.__name__ for change, *_ in Degrade(**EVERYTHING).changes]  # type: ignore[arg-type]
    assert names == ["_brighter", "_contrasted", "_blurred", "_resized", "_noisy", "_as_jpeg"]
    assert all(hasattr(degrade, name) for name in names)
