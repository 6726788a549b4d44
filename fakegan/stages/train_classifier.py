"""Stage 3: the classifier on its view; temperature, threshold and band on validation; the detector they make."""

from __future__ import annotations

import logging

import numpy as np
import torch

from fakegan.config.building import TARGET, named, takes, untrained
from fakegan.data.arrays import Rows, at_once
from fakegan.data.batches import FaceBatches, StoreOrder, on_device
from fakegan.data.familiarity import Familiarity
from fakegan.detector import Detector, NetSpec
from fakegan.evaluation.calibration import Validation, fit_temperature, probability
from fakegan.evaluation.metrics import choose_threshold
from fakegan.evaluation.roc import auroc
from fakegan.judge import BATCH, sha256_bytes
from fakegan.labels import FAKE, REAL
from fakegan.nets.recon_error import ERROR_NORMS, ReconError
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import CLASSIFIER_FOLDER, DETECTOR_FILE, LAST
from fakegan.stages.stage import Examples, Run, Stage
from fakegan.system import ranks
from fakegan.training import parts
from fakegan.training.averaging import WeightAverage
from fakegan.training.fitting import fit, weights_of
from fakegan.views import View

log = logging.getLogger(__name__)


def train_classifier(run: Run) -> None:
    """Train on the view and write the detector."""
    view = run.settings.pipeline.seen
    assert view is not None
    spec = _fit(run, view) if view.trains else _learn_error(view, run.examples)
    ranks.on_rank_zero(lambda: _write_detector(run, spec))


def _fit(run: Run, view: View) -> NetSpec:
    """Train the network that the config names; the best of its epochs."""
    settings, examples, budget = run.settings, run.examples, run.settings.classifier_budget
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
        augment=parts.augment(settings),
    )
    file = settings.classifier.weights_file
    begins = "" if file is None else f", from the weights of {file}"
    if file is not None and takes(settings.classifier.node["net"], "pretrained"):
        begins += ", but for its last layer"
    log.info("classifier: training %s on %d faces%s", settings.classifier.name, len(examples.train), begins)
    stage, stops_early = run.folder / CLASSIFIER_FOLDER, not settings.classifier.adversarial
    best = fit(
        lambda: parts.classifier(settings),
        data,
        stage,
        settings,
        budget,
        stops_early,
        begin=lambda module: parts.begin_pretrained(settings, module.get_submodule("net")),
        averaged=None if settings.classifier.ema is None else WeightAverage(settings.classifier.ema),
    )
    node = parts.classifier_node(settings)

    def keep_others() -> None:
        """Save the other networks that the module wants kept: a generator, as `sample` reads it."""
        for file, name in getattr(named(node[TARGET]), "keeps", {}).items():
            weights = weights_of(best.with_name(LAST), f"{name}.")
            content = {"net": untrained(node[name]), "weights": weights, "view": settings.pipeline.view}
            save_checkpoint(content, run.folder / file)

    ranks.on_rank_zero(keep_others)
    return NetSpec(untrained(node["net"]), weights_of(best, "net."))


@torch.inference_mode()
def _learn_error(view: View, examples: Examples) -> NetSpec:
    """Learn the errors of real training faces, in the norm that separates validation best; no network learns."""
    real = examples.train[examples.labels[examples.train] == REAL]
    nets = {norm: ReconError(view.channels, norm) for norm in ERROR_NORMS}
    for norm, errors in _log_errors(nets, view, examples, real).items():
        nets[norm].learn(errors)
    on_val = _log_errors(nets, view, examples, examples.val)
    labels = examples.labels[examples.val]
    aurocs = {norm: auroc(errors.double().numpy(), labels) for norm, errors in on_val.items()}
    best = max(aurocs, key=lambda norm: aurocs[norm])
    fake = torch.from_numpy(labels == FAKE)
    nets[best].place_between(on_val[best][~fake], on_val[best][fake])
    shown = ", ".join(f"{norm} {value:.3f}" for norm, value in aurocs.items())
    log.info("recon_error: validation AUROC by norm: %s; taking %s", shown, best)
    net = {TARGET: "fakegan.nets.recon_error.ReconError", "in_channels": view.channels, "norm": best}
    return NetSpec(net, nets[best].state_dict())


def _log_errors(nets: dict[str, ReconError], view: View, examples: Examples, rows: Rows) -> dict[str, torch.Tensor]:
    """The logarithm of each example's error, (N,), by norm."""
    errors: dict[str, list[torch.Tensor]] = {norm: [] for norm in nets}
    batches = FaceBatches({name: examples.arrays[name] for name in view.arrays}, examples.labels)
    for draw in StoreOrder(rows, at_once(BATCH, batches.size)):
        difference = view(on_device(batches[draw], view.arrays))
        for norm, net in nets.items():
            errors[norm].append(net.log_error(difference))
    return {norm: torch.cat(found) for norm, found in errors.items()}


def _write_detector(run: Run, spec: NetSpec) -> None:
    """The detector with temperature, threshold and band, which validation alone decides."""
    store, examples = run.faces.store, run.examples
    rows = {"train": np.unique(examples.train % examples.faces), "val": np.unique(examples.val % examples.faces)}
    used = np.concatenate(list(rows.values()))
    seen, seen_labels = sha256_bytes(store.sha256[used]), store.labels[used]
    autoencoder_spec = None
    if run.settings.pipeline.needs_autoencoder:
        content = load_checkpoint(run.autoencoder)
        autoencoder_spec = NetSpec(content["net"], content["weights"])
        real = np.concatenate([content["learnt"].numpy(), content["selected_on"].numpy()])
        seen = np.concatenate([seen, real])
        seen_labels = np.concatenate([seen_labels, np.full(len(real), REAL)])
    seen, first = np.unique(seen, axis=0, return_index=True)
    detector = Detector(
        geometry=store.geometry,
        view_name=str(run.settings.pipeline.view),
        classifier_spec=spec,
        autoencoder_spec=autoencoder_spec,
        seen=seen,
        seen_labels=seen_labels[first],
        flip_average=run.settings.detector.flip_average,
        familiarity=Familiarity.learn(store.images, store.widths, store.heights, rows["train"], rows["val"]),
        device=run.device,
        trust=run.settings.trusted,
    )
    labels = examples.labels[examples.val]
    margins = detector.margins(examples.arrays["image"], examples.val)
    detector.temperature = fit_temperature(margins, labels)
    scores = probability(margins, detector.temperature)
    detector.threshold = choose_threshold(scores, labels)
    detector.validation = Validation.of(scores, labels, examples.groups[examples.val])
    detector.band = detector.validation.band(detector.threshold)
    detector.save(run.folder / DETECTOR_FILE)


CLASSIFIER = Stage(
    "classifier",
    train_classifier,
    needed=lambda pipeline: pipeline.seen is not None,
    done=lambda run: (run.folder / DETECTOR_FILE).is_file(),
)
