"""The ten mistakes of the study this project follows: each must be impossible here. One test for each."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam

from fakegan.data.batches import FaceBatches, StoreOrder, loader, on_device
from fakegan.data.faces import open_faces
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.pixels import to_uint8
from fakegan.data.store import FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.detector import Detector, NetSpec, reconstruct
from fakegan.errors import FakeganError
from fakegan.labels import FAKE, LABEL_CONVENTION, REAL
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.backbone import Backbone
from fakegan.nets.recon_error import ReconError
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs.compose import CONF
from fakegan.stages import reconstruct as reconstruct_stage
from fakegan.stages import run as stages
from fakegan.training import parts
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.datamodules import RealFacesDataModule
from tests.conftest import Compose
from tests.helpers import csv_rows, fill, fit, picture, stages_with


def test_1_inputs_and_reconstructions_share_one_range() -> None:
    """There: inputs in [-2, 2] against a tanh."""
    black_and_white = np.stack([np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)])
    faces = FaceBatches({"image": black_and_white}, np.zeros(2, np.int64))
    (batch,) = loader(faces, StoreOrder(np.arange(2), 2))
    image = on_device(batch, ("image",))["image"]
    assert (image.min().item(), image.max().item()) == (-1, 1)
    saturated = AutoGAN(1, 4)
    saturated.decoder.to_rgb.bias.data = torch.tensor([100.0, -100.0, 100.0])
    recon = saturated(image)
    assert (recon.min().item(), recon.max().item()) == (-1, 1)


def test_2_floats_never_become_uint8_by_a_cast(tmp_path: Path) -> None:
    """There: reconstructions in [-1, 1], cast to uint8, were nearly all 0."""
    faces = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(reconstruct(nn.Identity().eval(), faces), faces)  # a perfect autoencoder changes no pixel
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        to_uint8(faces.permute(0, 3, 1, 2).float())
    row = Row.of(face_from_pixels(faces[0].numpy()), file="a", label=REAL, source="a")
    with pytest.raises(TypeError), StoreWriter(tmp_path / "store", Geometry()) as writer:
        writer.append(np.zeros((64, 64, 3), np.float32), row)  # type: ignore[arg-type]


def test_3_one_label_convention_from_store_to_score_4_and_the_test_split_is_what_is_tested(
    compose_settings: Compose, store_path: Path, tmp_path: Path
) -> None:
    """There: real = 1 in one notebook and 0 in the other, so that 57.2 should read 42.8; validation faces tested."""
    assert LABEL_CONVENTION == {"real": REAL, "fake": FAKE} == {"real": 0, "fake": 1}
    settings = compose_settings("pipeline=classify", "budget.classifier.max_epochs=6")
    stages.run(settings)
    rows = csv_rows(settings.paths.run_dir / "scores.csv")
    assert {(row["source"] == "camera", row["label"]) for row in rows} == {(True, "0"), (False, "1")}
    scores = {kind: [float(r["score"]) for r in rows if r["label"] == kind] for kind in "01"}
    assert np.mean(scores["1"]) > np.mean(scores["0"]) + 0.1  # an easy store: fakes score high, never low

    faces = open_faces(settings.data, settings.paths.data_dir, needs={})
    tested = [row["file"] for row in rows]
    assert tested == faces.store.files[faces.splits.test].tolist()
    assert not set(tested) & set(faces.store.files[faces.splits.val])

    manifest = Path(shutil.copytree(store_path, tmp_path / "flipped")) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"real": 0', '"real": 1').replace('"fake": 1', '"fake": 0'))
    with pytest.raises(FakeganError, match="label"):
        FaceStore.open(manifest.parent)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_5_no_face_is_on_two_sides_of_any_stage(compose_settings: Compose, share: float) -> None:
    """There: real test faces were among the autoencoder's training faces."""
    settings = compose_settings(f"data.split.autoencoder_share={share}")
    faces = open_faces(settings.data, settings.paths.data_dir, needs={})
    s, groups = faces.splits, faces.store.groups
    learnt = set(groups[np.concatenate([s.autoencoder_train, s.train])])
    chosen = set(groups[np.concatenate([s.autoencoder_val, s.val])])
    tested = set(groups[s.test])
    assert not learnt & chosen
    assert not learnt & tested
    assert not chosen & tested
    assert bool(set(s.autoencoder_train) & set(s.train)) == (share == 0)  # shared only where asked for


def test_6_scores_come_from_eval_mode(store: FaceStore) -> None:
    """There: classifiers were scored with dropout on."""
    node = {"_target_": "fakegan.nets.simple_cnn.SimpleCNN", "dropout": 0.9}
    net = SimpleCNN(dropout=0.9).train()
    nn.init.normal_(net.head[-1].weight)  # type: ignore[arg-type]
    detector = Detector(Geometry(), "pixels", NetSpec(node, net.state_dict()), None)
    assert np.array_equal(detector.scores(store.images[:8]), detector.scores(store.images[:8]))
    detector.classifier.train()
    assert not np.array_equal(detector.scores(store.images[:8]), detector.scores(store.images[:8]))  # it would show


@pytest.mark.parametrize("name", [*sorted(p.stem for p in (CONF / "classifier").glob("*.yaml")), "recon_error"])
def test_7_nets_end_in_logits(compose_settings: Compose, name: str) -> None:
    """There: a softmax loss on top of a sigmoid."""
    learns = name != "recon_error"
    net = parts.classifier(compose_settings(f"classifier={name}")).net if learns else ReconError(3)
    assert isinstance(net, nn.Module)
    layers = [m for m in net.modules() if not list(m.children())]
    ends = [net.head] if isinstance(net, Backbone) else layers  # EfficientNet has sigmoids, further inside
    assert not learns or isinstance(ends[-1], nn.Linear | nn.Conv2d)
    if isinstance(layers[-1], nn.Linear):
        nn.init.normal_(layers[-1].weight)  # untrained, it is zero
    logits = net(torch.randn(8, 3, 64, 64))
    assert ((logits < 0) | (logits > 1)).any()
    assert not any(isinstance(m, nn.Sigmoid | nn.Softmax | nn.LogSoftmax | nn.Tanh) for m in ends)


def test_8_classes_that_differ_in_shape_or_codec_are_called_out(run_prepare: Any, tmp_path: Path) -> None:
    """There: 218x178 JPEGs against square pictures of another codec."""
    fill(tmp_path / "real", 20, suffix="jpg")
    (tmp_path / "fake").mkdir()
    for i in range(20):
        picture(100 + i).resize((64, 80)).save(tmp_path / "fake" / f"{i}.png")
    code, out, err = run_prepare("--root", tmp_path)
    assert code == 0
    warning = next(line for line in (out + err).splitlines() if "warning" in line)
    assert "format" in warning
    assert "size" in warning


def test_9_a_discriminator_cannot_win_outright(compose_settings: Compose) -> None:
    """There: its loss fell to 1e-4 and the adversarial term taught nothing.

    Here it meets reconstructions that it could tell with certainty, of an autoencoder that stands still.
    """
    floor = compose_settings().model.node["discriminator_floor"]
    assert floor >= 0.01
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    rows = np.arange(64)
    losses = {}
    for name, value in (("resting", floor), ("free", 0.0)):
        torch.manual_seed(0)
        networks = AutoGAN(1, 8), PatchDiscriminator(8)
        module = AdversarialAutoencoder(*networks, partial(Adam, lr=2e-3, betas=(0.8, 0.9)), discriminator_floor=value)
        module.autoencoder.decoder.to_rgb.weight.data.zero_()  # every reconstruction is one flat colour
        module.autoencoder.requires_grad_(False)
        module.autoencoder.decoder.to_rgb.bias.requires_grad_(True)
        data = RealFacesDataModule(images, np.zeros(64, np.int64), rows, rows, batch_size=16, seed=0, workers=0)
        trainer = fit(module, data, epochs=12, limit_val_batches=0)
        losses[name] = trainer.callback_metrics["train/discriminator"].item()
    assert losses["free"] < floor / 4  # so it would have won
    assert losses["resting"] > losses["free"] * 2


def test_10_reconstructing_is_one_pass_in_large_batches(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There: two generator passes for one loss (see test_autoencoder), one image per batch when reconstructing."""
    sizes: list[int] = []
    real = reconstruct_stage.reconstruct

    def counted(net: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return real(net, pixels)

    monkeypatch.setattr(reconstruct_stage, "reconstruct", counted)
    settings = compose_settings()
    assert reconstruct_stage.BATCH >= 128
    monkeypatch.setattr(reconstruct_stage, "BATCH", 100)
    # The analysis reconstructs more faces, by the same function.
    stages.run(settings, stages_with(analyse=lambda _: None))
    splits = open_faces(settings.data, settings.paths.data_dir, needs={}).splits
    count = len(np.union1d(splits.train, splits.val))
    assert sizes == [100] * (count // 100) + [count % 100]
