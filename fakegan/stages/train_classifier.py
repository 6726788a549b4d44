"""Stage 3: the classifier on its view; temperature, threshold and band on validation; the detector they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fakegan.config.building import TARGET, Node, named, untrained
from fakegan.data.arrays import Rows
from fakegan.data.batches import FaceBatches, StoreOrder, on_device
from fakegan.data.faces import Faces
from fakegan.data.familiarity import Familiarity
from fakegan.detector import BATCH, Detector, NetSpec, sha256_bytes
from fakegan.evaluation.calibration import choose_band, fit_temperature, probability
from fakegan.evaluation.metrics import choose_threshold
from fakegan.evaluation.roc import auroc
from fakegan.labels import FAKE, REAL
from fakegan.nets.recon_error import ERROR_NORMS, ReconError
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import DETECTOR_FILE, LAST
from fakegan.runs.settings import RunSettings
from fakegan.stages.examples import Examples
from fakegan.system import ranks
from fakegan.system.devices import use_device
from fakegan.training import parts
from fakegan.training.fitting import fit, weights_of
from fakegan.views import View


def train_classifier(
    settings: RunSettings, faces: Faces, view: View, examples: Examples, autoencoder: Path | None
) -> None:
    """Train on the view, choose what validation decides, write the detector."""
    spec = _fit(settings, view, examples) if view.trains else _learn_error(view, examples)
    ranks.on_rank_zero(lambda: _write_detector(settings, faces, examples, autoencoder, spec))


def _write_detector(
    settings: RunSettings, faces: Faces, examples: Examples, autoencoder: Path | None, spec: NetSpec
) -> None:
    rows = {"train": np.unique(examples.train % examples.faces), "val": np.unique(examples.val % examples.faces)}
    used = np.concatenate(list(rows.values()))
    seen, seen_labels = sha256_bytes(faces.store.sha256[used]), faces.store.labels[used]
    autoencoder_spec = None
    if autoencoder is not None:
        content = load_checkpoint(autoencoder)
        autoencoder_spec = NetSpec(content["net"], content["weights"])
        real = np.concatenate([content["learnt"].numpy(), content["selected_on"].numpy()])
        seen = np.concatenate([seen, real])
        seen_labels = np.concatenate([seen_labels, np.full(len(real), REAL)])
    seen, first = np.unique(seen, axis=0, return_index=True)
    store = faces.store
    detector = Detector(
        geometry=store.geometry,
        view_name=str(settings.pipeline.view),
        classifier_spec=spec,
        autoencoder_spec=autoencoder_spec,
        seen=seen,
        seen_labels=seen_labels[first],
        familiarity=Familiarity.learn(store.images, store.widths, store.heights, rows["train"], rows["val"]),
        device=use_device(settings.trainer.accelerator),
        trust=settings.trusted,
    )
    _decide(detector, examples)
    detector.save(settings.paths.run_dir / DETECTOR_FILE)


def _decide(detector: Detector, examples: Examples) -> None:
    """Temperature, threshold and band, from validation alone."""
    labels = examples.labels[examples.val]
    margins = detector.margins(examples.arrays["image"], examples.val)
    detector.temperature = fit_temperature(margins, labels)
    scores = probability(margins, detector.temperature)
    detector.threshold = choose_threshold(scores, labels)
    detector.band = choose_band(scores, labels, detector.threshold)


def _fit(settings: RunSettings, view: View, examples: Examples) -> NetSpec:
    """Train the network that the config names; the best of its epochs."""
    stage, budget = settings.paths.run_dir / "classifier", settings.classifier_budget
    data = parts.data_module(
        settings,
        "classifier",
        arrays={name: examples.arrays[name] for name in view.arrays},
        labels=examples.labels,
        view=view,
        train_rows=examples.train,
        val_rows=examples.val,
        batch_size=budget.batch_size,
        batch_key=settings.batch_sizes()[-1][0],
        seed=settings.seed,
        ratio=settings.data.ratio,
        workers=settings.data.workers,
    )
    print(f"classifier: training {settings.classifier.name} on {len(examples.train)} faces", flush=True)
    stops_early = not settings.classifier.adversarial
    best = fit(lambda: parts.classifier(settings), data, stage, settings, budget, stops_early)
    node = parts.with_channels(settings.classifier.node, view.channels)
    ranks.on_rank_zero(lambda: _keep_others(settings, node, best.with_name(LAST)))
    return NetSpec(untrained(node["net"]), weights_of(best, "net."))


def _keep_others(settings: RunSettings, node: Node, last: Path) -> None:
    """Networks besides the classifier's own that its module wants kept: a generator, as `sample` reads it."""
    for file, name in getattr(named(node[TARGET]), "keeps", {}).items():
        content = {
            "net": untrained(node[name]),
            "weights": weights_of(last, f"{name}."),
            "view": settings.pipeline.view,
        }
        save_checkpoint(content, settings.paths.run_dir / file)


@torch.inference_mode()
def _learn_error(view: View, examples: Examples) -> NetSpec:
    """The error of real training faces, in the norm that tells best on validation: no network learns."""
    real = examples.train[examples.labels[examples.train] == REAL]
    nets = {norm: ReconError(view.channels, norm) for norm in ERROR_NORMS}
    for norm, errors in _log_errors(nets, view, examples, real).items():
        nets[norm].learn(torch.cat(errors))
    on_val = _log_errors(nets, view, examples, examples.val)
    labels = examples.labels[examples.val]
    aurocs = {norm: auroc(torch.cat(errors).double().numpy(), labels) for norm, errors in on_val.items()}
    best = max(aurocs, key=lambda norm: aurocs[norm])
    chosen, fake = torch.cat(on_val[best]), torch.from_numpy(labels == FAKE)
    nets[best].place_between(chosen[~fake], chosen[fake])
    shown = ", ".join(f"{norm} {value:.3f}" for norm, value in aurocs.items())
    print(f"recon_error: validation AUROC by norm: {shown}; taking {best}", flush=True)
    net = {TARGET: "fakegan.nets.recon_error.ReconError", "in_channels": view.channels, "norm": best}
    return NetSpec(net, nets[best].state_dict())


def _log_errors(
    nets: dict[str, ReconError], view: View, examples: Examples, rows: Rows
) -> dict[str, list[torch.Tensor]]:
    """By norm, batches of log errors of the examples."""
    errors: dict[str, list[torch.Tensor]] = {norm: [] for norm in nets}
    batches = FaceBatches({name: examples.arrays[name] for name in view.arrays}, examples.labels)
    for draw in StoreOrder(rows, BATCH):
        difference = view(on_device(batches[draw], view.arrays))
        for norm, net in nets.items():
            errors[norm].append(net.log_error(difference))
    return errors
