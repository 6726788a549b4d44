"""Stage 4: do reconstructed faces differ? Errors, codes and spectra of real and fake test faces.

No classifier takes part: runs that share an autoencoder and faces share the work, as an artifact.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fakegan.checks import SIZES
from fakegan.data.arrays import Rows, at_once
from fakegan.data.pixels import residual_pixels, to_unit
from fakegan.data.sheets import Picture, read_png, sheet, shrunk, stack, write_png
from fakegan.data.store import FaceStore
from fakegan.evaluation import error_plots, plots, probe, statistics
from fakegan.evaluation.intervals import Floats
from fakegan.evaluation.reconstructed import BEYOND, COMPLEXITY, PROBES, differences
from fakegan.judge import BATCH
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.nets.likeness import Detail, psnr, ssim, total_variation
from fakegan.runs.artifacts import MANIFEST, file_digest, names_digest, obtain
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.folder import ANALYSIS_FILE, ANALYSIS_FOLDER, CODES_FILE, ERRORS_FILE
from fakegan.runs.results import write_metrics
from fakegan.stages.reconstruct import LiveReconstructions
from fakegan.stages.stage import Run, Stage
from fakegan.system.files import building_folder, csv_table, read_csv
from fakegan.system.log import quiet
from fakegan.system.places import install
from fakegan.training.loggers import log_codes, log_histogram, log_picture, stage_loggers

COMPLEXITY_NAME = "total variation: mean absolute difference of neighbouring pixels of the grey face"
PROJECTED = 1000  # faces whose codes are kept for TensorBoard's projector, at most
_LEAST_POWER = 1e-8  # of a ring, where its logarithm is taken: far below what rounding to uint8 leaves
RECIPE = 3  # of the analysis: raise it when the same autoencoder and faces give other numbers, files or pictures
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """Measurements of some faces and their reconstructions, in the order of their rows."""

    rows: Rows  # (N,), of the store
    errors: dict[str, Floats]  # l1 in [-1, 1], psnr in dB, ssim, high_frequency in [-1, 1]: (N,) each
    complexity: Floats  # (N,)
    code: Floats  # (N, 2C): mean, then standard deviation, of each channel of the code over its places
    code_places: int  # of each channel of the code; (size / 4)^2 of AutoGAN's
    spectra: dict[str, Floats]  # face, reconstruction, residual: (N, K) each, of K frequencies

    @property
    def probes(self) -> dict[str, Floats]:
        """The features of the linear probes, (N, K) each."""
        power = np.log(np.maximum(self.spectra["residual"], _LEAST_POWER))
        return {"code": self.code, "residual_spectrum": power}


def analyse(run: Run) -> None:
    """Write the run's folder `analysis`: numbers, errors of each test face, pictures; once, for the loggers too."""
    settings, splits = run.settings, run.faces.splits
    ingredients = {
        "autoencoder": file_digest(run.autoencoder),
        "faces": run.faces.store.fingerprint,
        "rows": {name: names_digest(getattr(splits, name).astype(str)) for name in ("train", "val", "test")},
        "unseen": list(settings.data.split.unseen),
        "pictures": plots.available(),
    }
    name, root = settings.model.name, settings.paths.artifact_dir
    artifact = obtain(root, "analysis", name, RECIPE, ingredients, lambda building: _write(run, building))
    folder = run.folder / ANALYSIS_FOLDER
    with building_folder(folder) as building:
        shutil.copytree(artifact, building, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
        _log(run, building)


def _write(run: Run, folder: Path) -> dict[str, Any]:
    """Measure training, validation and test faces, and write the artifact's files into `folder`."""
    store, splits = run.faces.store, run.faces.splits
    live = LiveReconstructions(run, store.images)
    real_val = splits.val[store.labels[splits.val] == REAL]
    train = _measure(live, splits.train, "training")
    val = _measure(live, real_val, "validation")
    test = _measure(live, splits.test, "test")
    columns = _columns(store, train, val, test)
    numbers = differences(columns, store.labels[test.rows], store.sources[test.rows], store.groups[test.rows])
    numbers["complexity"]["name"] = COMPLEXITY_NAME
    for name, features in train.probes.items():
        numbers["probes"][name] |= {"features": features.shape[1], "n_train": len(train.rows)}
    trained, channels = load_checkpoint(run.autoencoder), test.code.shape[1] // 2
    content = {
        "n_real": int((store.labels[splits.test] == REAL).sum()),
        "n_fake": int((store.labels[splits.test] == FAKE).sum()),
        "autoencoder": {
            "depth": trained["net"].get("depth"),
            "width": trained["net"].get("width"),
            "code_channels": channels,
            "code_numbers": channels * test.code_places,
            "picture_numbers": 3 * store.geometry.size**2,
            "psnr": trained["metrics"]["val/psnr"],
        },
        **numbers,
        "unseen": list(run.settings.data.split.only_tested(np.unique(store.sources[store.labels == FAKE]).tolist())),
    }
    with csv_table(folder / ERRORS_FILE, ("file", "source", "label", *columns)) as lines:
        for i, row in enumerate(test.rows):
            errors = (f"{values[i]:.9g}" for values in columns.values())
            lines.writerow((store.files[row], store.sources[row], store.labels[row], *errors))
    _write_pictures(folder, store, live, test)
    np.save(folder / CODES_FILE, test.code[projected(test.rows), :channels].astype(np.float32))
    write_metrics(folder / ANALYSIS_FILE, content)
    return {"test_faces": len(test.rows)}


@torch.inference_mode()
def _measure(live: LiveReconstructions, rows: Rows, what: str) -> Measured:
    """Measure some faces; their reconstructions are rounded to uint8, as they are stored."""
    codes: list[Tensor] = []
    hook = cast(nn.Module, live.net.encoder).register_forward_hook(lambda net, inputs, code: codes.append(code))
    parts: list[dict[str, Floats]] = []
    size = live.images[rows[:0]].shape[1]
    detail, length = Detail(size, live.device), at_once(BATCH, size)
    for start in tqdm(range(0, len(rows), length), f"analysing {len(rows)} {what} faces", disable=quiet() or None):
        face, recon = (to_unit(pixels).contiguous() for pixels in live.with_faces(rows[start : start + length]))
        measured = _of_batch(face, recon, codes.pop().float(), detail)
        parts.append({name: values.cpu().numpy() for name, values in measured.items()})
    hook.remove()
    column = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}
    return Measured(
        rows,
        errors={name: column[name] for name in error_plots.AXES},
        complexity=column["complexity"],
        code=column["code"],
        code_places=int(column["code_places"].max(initial=0)),
        spectra={name: column[name] for name in ("face", "reconstruction", "residual")},
    )


def _of_batch(
    face: Tensor,  # (B, 3, size, size), in [-1, 1]
    recon: Tensor,  # the same
    code: Tensor,  # (B, C, size / 4, size / 4), of another net than AutoGAN (B, C, ...) or (B, C)
    detail: Detail,
) -> dict[str, Tensor]:
    """The measurements of a batch of faces, (B, ...) each."""
    grey_face, grey_recon = detail.grey(face), detail.grey(recon)
    residual, high_frequency = detail.power(grey_recon - grey_face)
    places = code.reshape(*code.shape[:2], -1)  # (B, C, P)
    return {
        "l1": (recon - face).abs().mean(dim=(1, 2, 3)),
        "psnr": psnr(recon, face),
        "ssim": ssim(recon, face),
        "high_frequency": high_frequency,
        "complexity": total_variation(grey_face),
        "code": torch.cat([places.mean(dim=2), places.std(dim=2, correction=int(places.shape[2] > 1))], dim=1),
        "code_places": torch.full((len(face),), places.shape[2]),
        "face": detail.power(grey_face)[0],
        "reconstruction": detail.power(grey_recon)[0],
        "residual": residual,
    }


def _columns(store: FaceStore, train: Measured, val: Measured, test: Measured) -> dict[str, Floats]:
    """The columns of errors.csv for the test faces, (N,) each; `val` holds real faces that are new to the autoencoder.

    The probes learn from `train`, and have no column where it has one class. The autoencoder has learnt from its real
    faces where data.split.autoencoder_share is 0.
    """
    columns = {**test.errors, COMPLEXITY: test.complexity}
    columns[BEYOND] = statistics.beyond_line(test.errors["l1"], test.complexity, val.errors["l1"], val.complexity)
    labels = store.labels[train.rows]
    if len(np.unique(labels)) == 2:
        for name, column in PROBES.items():
            columns[column] = probe.fit_probe(train.probes[name], labels).scores(test.probes[name])
    return columns


def _write_pictures(folder: Path, store: FaceStore, live: LiveReconstructions, test: Measured) -> None:
    """Example faces, and figures where there is matplotlib."""
    labels, sources = store.labels[test.rows], store.sources[test.rows]
    write_png(folder / "examples.png", example_sheet(live, test, labels))
    if plots.available():
        distributions = error_plots.error_distributions(test.errors, labels, sources)
        write_png(folder / "error_distributions.png", error_plots.rendered(distributions))
        spectra = error_plots.mean_spectra(test.spectra, labels, store.geometry.size)
        write_png(folder / "spectra.png", error_plots.rendered(spectra))
    else:
        log.info("no figures: they need matplotlib, %s", install("plots"))


def projected(rows: Rows) -> Rows:
    """The places of the faces whose codes are kept for TensorBoard's projector: evenly taken from all."""
    return np.unique(np.linspace(0, len(rows) - 1, PROJECTED).astype(np.int64))


def _log(
    run: Run,
    folder: Path,  # that holds the analysis; TensorBoard's files are written into it
) -> None:
    """Give the loggers pictures, errors and codes, out of the analysis's files: another run may have made them."""
    store, rows = run.faces.store, run.faces.splits.test
    labels = store.labels[rows]
    lines = read_csv(folder / ERRORS_FILE)
    errors = {name: np.array([float(line[name]) for line in lines]) for name in error_plots.AXES}
    picked = rows[projected(rows)]
    words = {
        "source": [str(source).encode("utf-8", "replace").decode() for source in store.sources[picked]],
        "class": [CLASS_NAMES[int(label)] for label in store.labels[picked]],
    }
    faces = np.stack([shrunk(store.images[row], SIZES[0]) for row in picked])  # all are one picture there
    with stage_loggers(run.settings, folder) as loggers:
        for logger in loggers:
            for path in sorted(folder.glob("*.png")):
                log_picture(logger, f"analysis/{path.stem}", read_png(path), 0)
            for name, values in errors.items():
                for label, class_name in CLASS_NAMES.items():
                    if (labels == label).any():
                        log_histogram(logger, f"analysis/{name}_{class_name}", values[labels == label])
            log_codes(logger, "codes", np.load(folder / CODES_FILE), words, faces)


def example_sheet(live: LiveReconstructions, test: Measured, labels: npt.NDArray[np.int64]) -> Picture:
    """Face, reconstruction, residual of the two best, median and worst copied faces of each class, with their PSNR."""
    sheets = []
    for label, class_name in CLASS_NAMES.items():
        own = np.flatnonzero(labels == label)
        ranked = own[np.argsort(-test.errors["psnr"][own], kind="stable")]
        n = len(ranked)
        if not n:
            continue
        starts = {"worst": n - 2, "median": (n - 2) // 2, "best": 0}  # the later word wins where few faces share them
        words = {place: word for word, start in starts.items() for place in (start, start + 1) if 0 <= place < n}
        shown = ranked[sorted(words)]
        captions = [
            f"{class_name}, {word}\n{test.errors['psnr'][face]:.1f} dB"
            for (_, word), face in zip(sorted(words.items()), shown, strict=True)
        ]
        faces, recons = (np.asarray(x[test.rows[shown]]) for x in (live.images, live))
        residual = residual_pixels(torch.from_numpy(faces), torch.from_numpy(recons)).numpy()
        sheets.append(sheet([faces, recons, residual], captions, zoom=max(1, 128 // faces.shape[1])))
    return stack(sheets)


ANALYSIS = Stage(
    "analyse",
    analyse,
    needed=lambda pipeline: pipeline.seen is not None and pipeline.needs_autoencoder,
    done=lambda run: (run.folder / ANALYSIS_FOLDER / ANALYSIS_FILE).is_file(),
    on_rank_0=True,
)
