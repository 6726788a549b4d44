"""Stage 3: the classifier on its view, the threshold on validation, and the detector they make."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from fakegan.callbacks import StopOnDivergence
from fakegan.checkpoints import load_checkpoint
from fakegan.data.datamodule import RealFakeDataModule, RowArray
from fakegan.data.faces import Faces
from fakegan.detector import DETECTOR_FILE, Detector, NetSpec, sha256_bytes
from fakegan.evaluation.metrics import choose_threshold
from fakegan.modules.classifier import Classifier
from fakegan.pipeline.fitting import fit, pick_device, weights_of
from fakegan.pipeline.settings import RunSettings
from fakegan.views import View


def train_classifier(
    settings: RunSettings,
    faces: Faces,
    view: View,
    autoencoder: Path | None,
    recon: RowArray | None,
) -> None:
    """Train on the view, choose the threshold on validation, write the detector."""
    stage = settings.paths.run_dir / "classifier"
    arrays: dict[str, RowArray] = {"image": faces.store.images}
    if recon is not None:
        arrays["recon"] = recon
    data = RealFakeDataModule(
        {name: arrays[name] for name in view.arrays},
        faces.store.labels,
        view,
        faces.splits.train,
        faces.splits.val,
        batch_size=settings.budget.classifier.batch_size,
        seed=settings.seed,
        ratio=settings.data.ratio,
        workers=settings.data.workers,
    )
    options = {**asdict(settings.classifier), "in_channels": view.channels}
    del options["name"]
    print(f"classifier: training {settings.classifier.name} on {len(faces.splits.train)} faces", flush=True)
    best = fit(
        lambda: Classifier(**options),
        data,
        stage,
        settings,
        settings.budget.classifier,
        monitor="val/auroc",
        mode="max",
        patience=settings.callbacks.patience,
        callbacks=[StopOnDivergence("classifier.learning_rate")],
    )
    net_options = {"net": options["net"], "in_channels": view.channels, "options": options["net_options"]}
    used = np.concatenate([faces.splits.train, faces.splits.val])
    seen = [sha256_bytes(faces.store.sha256[used])]
    autoencoder_spec = None
    if autoencoder is not None:
        content = load_checkpoint(autoencoder)
        autoencoder_spec = NetSpec(content["options"], content["weights"])
        seen += [content["learnt"].numpy(), content["selected_on"].numpy()]
    detector = Detector(
        geometry=faces.store.geometry,
        view_name=settings.pipeline.view or "",
        classifier_spec=NetSpec(net_options, weights_of(best, "net.")),
        autoencoder_spec=autoencoder_spec,
        seen=np.unique(np.concatenate(seen), axis=0),
        device=pick_device(settings.trainer.accelerator),
    )
    val = faces.splits.val
    detector.threshold = choose_threshold(detector.scores(faces.store.images, val), faces.store.labels[val])
    detector.save(settings.paths.run_dir / DETECTOR_FILE)
