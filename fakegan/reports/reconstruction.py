"""The report's chapter on reconstructions: the analyses of the autoencoders, side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.checks import SIZES
from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import Measure
from fakegan.evaluation.reconstructed import COMPLEXITY, differences
from fakegan.reports.groups import fingerprint
from fakegan.reports.numbers import cell, number, p_cell
from fakegan.reports.render import Block, Figure, Gallery, Section, Table, Text
from fakegan.runs.artifacts import file_digest
from fakegan.runs.finished import FinishedRun
from fakegan.runs.folder import ANALYSIS_FILE, ANALYSIS_FOLDER, AUTOENCODER_FILE, AUTOENCODER_FOLDER, ERRORS_FILE
from fakegan.runs.results import read_json
from fakegan.system.files import read_csv

L1 = ("errors", "l1", "real_vs_fake")  # keys of analysis.json
ERRORS = {"l1": "L1", "psnr": "PSNR, dB", "ssim": "SSIM", "high_frequency": "high-frequency energy"}
SHEET = "examples"  # shown in full width
PICTURES = {  # pictures of the analysis, by file name -> caption
    "error_distributions": "Distributions of reconstruction errors by source",
    "spectra": "Mean power by spatial frequency",
    SHEET: "Three rows each for real and for fake: test faces of the best, median and worst PSNR; below them their "
    "reconstructions; below these four times the residual, black where nothing differs",
}
_MAX_ERRORS_BYTES = 2**30  # some 200 bytes a face
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MAX_PICTURE_BYTES = 64 * 2**20  # the largest, of faces of 256 pixels, has some 3 MB
_CURE = "delete its folder and run the analysis again"


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder's settings and faces, with a run for each seed."""

    name: str
    runs: tuple[FinishedRun, ...]  # by seed
    analyses: tuple[dict[str, Any], ...]  # of the runs that have an analysis
    about: str = ""  # which faces the analyses are about, if not the whole test split

    def measures(self, *keys: str) -> list[Measure]:
        """A measure of analysis.json, one a seed."""
        return [measure for measure in self._all(*keys) if isinstance(measure, dict)]

    def worst_p(self, *keys: str) -> float | None:
        """The largest p-value over seeds: a result that holds with it holds for each seed."""
        p_values = self._all(*keys)
        defined = [p for p in p_values if isinstance(p, float | int)]
        return max(defined) if defined and len(defined) == len(p_values) else None

    def _all(self, *keys: str) -> list[Any]:
        found = []
        for content in self.analyses:
            node: Any = content
            for key in keys:
                node = node.get(key) if isinstance(node, dict) else None
            found.append(node)
        return found


def autoencoders(runs: Sequence[FinishedRun]) -> list[Autoencoder]:
    """Each autoencoder that these runs trained, by depth and width of its code, however many runs share it.

    Runs that learnt from other generators share it, too, where its weights are the same: those of the first are shown.
    """
    by_settings: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        if not run.settings.pipeline.needs_autoencoder:
            continue
        seeds = by_settings.setdefault(_key(run, held_out=False), {})
        known = seeds.get(run.settings.seed)
        if known is not None and _key(known) != _key(run) and _weights(known) != _weights(run):
            seeds = by_settings.setdefault(_key(run), {})
            known = seeds.get(run.settings.seed)
        if known is None or (_file(run).is_file() and not _file(known).is_file()):
            seeds[run.settings.seed] = run
    alike = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in by_settings.values()]
    alike.sort(key=lambda runs: (runs[0].settings.model.depth, _code_channels(runs[0])))
    found = []
    for name, of_seeds in zip(_names([of_seeds[0] for of_seeds in alike]), alike, strict=True):
        analyses = [_analysis(run) for run in of_seeds if _file(run).is_file()]
        about = dict.fromkeys(words for _, words in analyses if words)
        found.append(Autoencoder(name, of_seeds, tuple(content for content, _ in analyses), "; ".join(about)))
    return found


def _key(run: FinishedRun, held_out: bool = True) -> str:
    """What an autoencoder is made from, with or without the sources that are held out."""
    content = run.settings.configuration()
    if not held_out:
        del content["data"]["split"]["unseen"], content["data"]["split"]["learn_from"]
    return json.dumps([content["model"], content["autoencoder"], content["data"]], sort_keys=True)


def _weights(run: FinishedRun) -> str:
    """The digest of the autoencoder's file; of a run that lacks it the run's place, which is no other's."""
    path = run.path / AUTOENCODER_FOLDER / AUTOENCODER_FILE
    return file_digest(path) if path.is_file() else str(run.path)


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """The model's name, with each option of it that varies, and a number where that is not enough."""
    models = [run.settings.model for run in runs]
    names = []
    for model in models:
        words = [model.name]
        for key in ("code_channels", "width", "norm"):
            if len({m.node["net"].get(key) for m in models if m.name == model.name}) > 1:
                value = model.node["net"].get(key)
                words.append(f"{key}={'full' if value is None else value}")
        names.append(" ".join(words))
    return [name if names.count(name) == 1 else f"{name} #{names[: i + 1].count(name)}" for i, name in enumerate(names)]


def _code_channels(run: FinishedRun) -> int:
    model, width = run.settings.model, run.settings.model.node["net"].get("width", 0)
    return model.code_channels if model.code_channels is not None else 4 * width if isinstance(width, int) else 0


def _file(run: FinishedRun) -> Path:
    return run.path / ANALYSIS_FOLDER / ANALYSIS_FILE


def _analysis(run: FinishedRun) -> tuple[dict[str, Any], str]:
    """analysis.json for the faces that the run was scored on, and which faces those are if not its whole test split.

    An analysis holds the numbers of each of the run's own test faces: for some of them it is computed again, for other
    faces it cannot be.
    """
    content = read_json(_file(run), _CURE)
    alone = Autoencoder("", (run,), (content,))
    try:  # the run may come from elsewhere
        for rows in (_overview, _separation, _caveat, _error_rows):
            rows(alone)
        if not isinstance(content["complexity"]["name"], str):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FakeganError(f"{_file(run)} is damaged or of another version: {_CURE}") from error
    if run.folder == run.path or not run.classifies:
        return content, ""
    whole, here = FinishedRun(run.settings, run.path), run.scores
    own, files = set(whole.scores.files.tolist()), here.files.tolist()
    if fingerprint(whole) != fingerprint(run) or not set(files) <= own:
        return content, f"all {len(own)} test faces of the runs themselves, not the faces scored here"
    if own == set(files):
        return content, ""
    found = differences(
        _errors(run.path / ANALYSIS_FOLDER / ERRORS_FILE, files), here.labels, here.sources, here.groups
    )
    found["complexity"]["name"] = content["complexity"]["name"]
    return {**content, **found}, f"the {len(files)} faces scored here, of {len(own)} test faces"


def _errors(path: Path, files: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of errors.csv for some files, in their order, (N,) each; FakeganError where it is damaged."""
    try:
        if path.stat().st_size > _MAX_ERRORS_BYTES:
            raise ValueError
        lines = {line.pop("file"): line for line in read_csv(path)}
        names = [name for name in next(iter(lines.values())) if name not in ("source", "label")]
        columns = {name: np.array([float(lines[file][name]) for file in files]) for name in names}
        if not {*ERRORS, COMPLEXITY} <= set(columns):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise FakeganError(f"{path} is damaged or of another version: {_CURE}") from error
    return columns


def chapter(found: Sequence[Autoencoder]) -> list[Block]:
    """What the autoencoders do to real and fake faces; nothing where there is none."""
    if not found:
        return []
    blocks: list[Block] = [Table("Autoencoders, on validation faces (real ones)", [_overview(a) for a in found])]
    analysed = [autoencoder for autoencoder in found if autoencoder.analyses]
    for about in dict.fromkeys(a.about for a in analysed if a.about):
        words = f"Numbers of this chapter are about {about}; its pictures show all test faces of the runs."
        blocks.append(Text(words, warning=True))
    if analysed:
        numbers = analysed[0].analyses[0]["autoencoder"].get("picture_numbers", 3 * SIZES[0] ** 2)
        words = (
            "Differences are fake less real: a negative Cohen's d of L1 says that fakes are copied more exactly, and "
            "an AUROC below 0.5 says the same of a random pair. A code that holds more numbers than the picture "
            f"({numbers}) can copy anything, so it says little about what was learnt from real faces."
        )
        busy = f"busy pictures are harder to copy, whoever made them ({analysed[0].analyses[0]['complexity']['name']})"
        blocks += [
            Text(words),
            Table("Real against fake test faces, by autoencoder", [_separation(a) for a in analysed]),
            Table(f"The caveat: {busy}", [_caveat(a) for a in analysed]),
            *(_of_autoencoder(i, autoencoder) for i, autoencoder in enumerate(analysed)),
        ]
    missing = [autoencoder.name for autoencoder in found if not autoencoder.analyses]
    if missing:
        blocks.append(Text(f"Without an analysis of reconstruction errors: {', '.join(missing)}."))
    return blocks


def _on_validation(a: Autoencoder, key: str, digits: int) -> str:
    return ", ".join(number(run.metrics.get("autoencoder", {}).get(key), digits=digits) for run in a.runs)


def _overview(a: Autoencoder) -> dict[str, str]:
    model = a.runs[0].settings.model
    code = a.analyses[0]["autoencoder"] if a.analyses else {}
    return {
        "autoencoder": a.name,
        "depth": str(model.depth or "-"),
        "width": str(model.node["net"].get("width", "-")),
        "code channels": str(code.get("code_channels", model.code_channels or "-")),
        "code numbers": str(code.get("code_numbers", "-")),
        "PSNR, dB": _on_validation(a, "psnr", 2),
        "L1": _on_validation(a, "l1", 4),
        "SSIM": _on_validation(a, "ssim", 3),
    }


def _separation(a: Autoencoder) -> dict[str, str]:
    p_values = [p_cell(a.worst_p(*L1, test, "p")) for test in ("mann_whitney", "kolmogorov_smirnov")]
    return {
        "autoencoder": a.name,
        "code channels": str(a.analyses[0]["autoencoder"]["code_channels"]),
        "PSNR, dB": _on_validation(a, "psnr", 2),
        "Cohen's d of L1": cell(a.measures(*L1, "cohens_d"), signed=True, intervals=True),
        "AUROC of L1 (Mann-Whitney)": cell(a.measures(*L1, "mann_whitney", "auc"), intervals=True),
        "Kolmogorov-Smirnov D": cell(a.measures(*L1, "kolmogorov_smirnov", "d"), intervals=True),
        "p of both, uncorrected": "\n".join(p_values),
        "AUROC of a linear probe: code": cell(a.measures("probes", "code", "auroc"), intervals=True),
        "AUROC of a linear probe: residual spectrum": cell(
            a.measures("probes", "residual_spectrum", "auroc"), intervals=True
        ),
    }


def _caveat(a: Autoencoder) -> dict[str, str]:
    columns = {
        "Spearman with L1, real faces": ("complexity", "spearman", "l1"),
        "d of complexity": ("complexity", "real_vs_fake", "cohens_d"),
        "d of L1": (*L1, "cohens_d"),
        "d of L1, complexity taken out": ("complexity", "l1_given_complexity", "cohens_d"),
    }
    return {
        "autoencoder": a.name,
        **{name: cell(a.measures(*keys), signed=True, intervals=True) for name, keys in columns.items()},
    }


def _of_autoencoder(index: int, autoencoder: Autoencoder) -> Section:
    """Its errors by source, and its analysis' pictures: both of the first seed that has an analysis."""
    run = next(run for run in autoencoder.runs if _file(run).is_file())
    name = f"{autoencoder.name} of seed {run.settings.seed}" if len(autoencoder.runs) > 1 else autoencoder.name
    whole = ", all test faces of the run" if autoencoder.about else ""
    plots, sheets = list[Figure](), list[Figure]()
    for path in sorted((run.path / ANALYSIS_FOLDER).glob("*.png")):
        words = path.stem.replace("_", " ")
        shown = Figure(
            name=f"analysis_{index}_{path.stem}".lower().replace("-", "_"),
            png=_picture(path),
            alt=f"{words} of {autoencoder.name}",
            caption=f"{PICTURES.get(path.stem, words)}: {name}{whole}.",
        )
        (sheets if path.stem == SHEET else plots).append(shown)
    table = Table(f"{name}: mean error of test faces by source", _error_rows(autoencoder))
    return Section(autoencoder.name, [table, *([Gallery(plots)] if plots else []), *sheets])


def _error_rows(autoencoder: Autoencoder) -> list[dict[str, str]]:
    """The first analysis' mean errors, a row for each source."""
    errors, rows = autoencoder.analyses[0]["errors"], []
    for source, of_source in errors["l1"]["by_source"].items():
        row = {"source": f"{source} ({of_source['label']})", "faces": str(of_source["n"])}
        for key, column in ERRORS.items():
            found = errors.get(key, {}).get("by_source", {}).get(source)
            row[column] = cell([] if found is None else [found["mean"]])
        found = errors["l1"].get("by_generator", {}).get(source)
        row["Cohen's d of L1 against real faces"] = cell([] if found is None else [found["cohens_d"]], signed=True)
        rows.append(row)
    return rows


def _picture(path: Path) -> bytes:
    """A picture of the analysis; FakeganError where it is a link, which could be to anything here, or no PNG.

    A run may come from elsewhere, and people hand reports on.
    """
    if path.is_symlink() or path.parent.is_symlink():
        raise FakeganError(f"{path} is a link, which an analysis never writes: {_CURE}")
    content = path.read_bytes() if path.is_file() and path.stat().st_size <= _MAX_PICTURE_BYTES else b""
    if not (content.startswith(_PNG) and _PICTURE_NAME.fullmatch(path.stem)):
        raise FakeganError(f"{path} is damaged or of another version: it is no picture of an analysis; {_CURE}")
    return content
