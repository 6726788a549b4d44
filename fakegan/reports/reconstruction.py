"""The report's chapter on reconstructions: what run_dir/analysis says of each autoencoder, beside each other."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation.metrics import Measure
from fakegan.evaluation.reconstructed import COMPLEXITY, differences
from fakegan.reports.numbers import in_lines, measured, number, over, p_cell
from fakegan.reports.render import Block, Caution, Figure, Gallery, Section, Table, Text
from fakegan.runs.finished import FinishedRun
from fakegan.runs.results import read_json

ANALYSIS, ERRORS_FILE = "analysis", "errors.csv"  # folder in a run, and a file of it
ERRORS = {  # key of analysis.json -> how it is called
    "l1": "L1",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "high_frequency": "high-frequency energy",
}
SHEET = "examples"  # shown in full width
PICTURES = {  # pictures of the analysis -> what they show
    "error_distributions": "Distributions of reconstruction errors by source",
    "spectra": "Mean power by spatial frequency",
    SHEET: "Test faces of the best, median and worst PSNR, their reconstructions and four times the residual",
}
_MAX_ERRORS_BYTES = 2**30  # some 200 bytes a face
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MAX_PICTURE_BYTES = 64 * 2**20  # the largest has some 500 kB
_CURE = "delete its folder and run the analysis again"


@dataclass(frozen=True)
class Autoencoder:
    """One autoencoder's settings and faces, with a run for each seed."""

    name: str
    runs: tuple[FinishedRun, ...]  # by seed
    analyses: tuple[dict[str, Any], ...]  # of those runs that have one
    about: str = ""  # which faces the analyses are about, where those are not the whole test split

    @property
    def analysed(self) -> FinishedRun | None:
        """The first run with an analysis: its pictures are shown."""
        return next((run for run in self.runs if _file(run).is_file()), None)

    def measures(self, *keys: str) -> list[Measure]:
        """A measure of analysis.json, one a seed."""
        return [measure for measure in self._all(*keys) if isinstance(measure, dict)]

    def worst_p(self, *keys: str) -> float | None:
        """The largest p-value over seeds: what holds with it holds for each seed."""
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
    """Each autoencoder that these runs trained, once however many runs share it, by depth and width of its code.

    Raises:
        FakeganError: a damaged analysis.json.
    """
    by_settings: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        if not run.settings.pipeline.needs_autoencoder:
            continue
        content = run.settings.configuration()
        key = json.dumps([content["model"], content["autoencoder"], content["data"]], sort_keys=True)
        seeds = by_settings.setdefault(key, {})
        known = seeds.get(run.settings.seed)
        if known is None or (_file(run).is_file() and not _file(known).is_file()):
            seeds[run.settings.seed] = run
    together = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in by_settings.values()]
    together.sort(key=lambda same: (same[0].settings.model.depth, _code_numbers(same[0])))
    names = _names([same[0] for same in together])
    return [_with_analyses(name, same) for name, same in zip(names, together, strict=True)]


def _with_analyses(name: str, runs: tuple[FinishedRun, ...]) -> Autoencoder:
    found = [_analysis(run) for run in runs if _file(run).is_file()]
    about = dict.fromkeys(words for _, words in found if words)
    return Autoencoder(name, runs, tuple(content for content, _ in found), "; ".join(about))


def _analysis(run: FinishedRun) -> tuple[dict[str, Any], str]:
    """analysis.json for the faces that the run was scored on, and which those are where they are not its whole test.

    An analysis holds the numbers of each of the run's own test faces: for some of them it is done again, for others it
    cannot be.
    """
    content = _read(run)
    if run.folder == run.path or not run.classifies:
        return content, ""
    own, here = FinishedRun(run.settings, run.path).scores, run.scores
    if set(own.files.tolist()) == set(here.files.tolist()) and _same_store(run):
        return content, ""
    if not _same_store(run) or not set(here.files.tolist()) <= set(own.files.tolist()):
        return content, f"all {len(own)} test faces of the runs themselves, not the faces scored here"
    columns = _errors(run.path / ANALYSIS / ERRORS_FILE, here.files.tolist())
    found = differences(columns, here.labels, here.sources, here.groups)
    found["complexity"]["name"] = content["complexity"]["name"]
    return {**content, **found}, f"the {len(here)} faces scored here, of {len(own)} test faces"


def _same_store(run: FinishedRun) -> bool:
    own = FinishedRun(run.settings, run.path)
    return bool(own.metrics.get("data_fingerprint") == run.metrics.get("data_fingerprint"))


def _errors(path: Path, files: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of errors.csv for some files, in their order, (N,) each.

    Raises:
        FakeganError: it is missing or damaged.
    """
    try:
        if path.stat().st_size > _MAX_ERRORS_BYTES:
            raise ValueError
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = {line.pop("file"): line for line in csv.DictReader(file)}
        names = [name for name in next(iter(lines.values())) if name not in ("source", "label")]
        columns = {name: np.array([float(lines[file][name]) for file in files]) for name in names}
        if not {*ERRORS, COMPLEXITY} <= set(columns):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, StopIteration, csv.Error) as error:
        raise FakeganError(f"{path} is damaged or of another version: {_CURE}") from error
    return columns


def chapter(found: Sequence[Autoencoder]) -> Section | None:
    """What the autoencoders do to real and fake faces; None where there is none."""
    if not found:
        return None
    blocks: list[Block] = [_overview(found)]
    analysed = [autoencoder for autoencoder in found if autoencoder.analyses]
    if analysed:
        blocks += [Caution(f"{about}.") for about in dict.fromkeys(_about(a) for a in analysed) if about]
        blocks += [
            Text(
                "Differences are fake less real: a negative Cohen's d of L1 says that fakes are copied more exactly, "
                "and an AUROC below 0.5 says the same of a random pair. A code that holds more numbers than the "
                "picture (12288) can copy anything, so it says little about what was learnt from real faces."
            ),
            _separations(analysed),
            _caveat(analysed),
            *(_by_autoencoder(i, autoencoder) for i, autoencoder in enumerate(analysed)),
        ]
    missing = [autoencoder.name for autoencoder in found if not autoencoder.analyses]
    if missing:
        blocks.append(Text(f"Without an analysis of reconstruction errors: {', '.join(missing)}."))
    return Section("Reconstructions", blocks)


def _overview(found: Sequence[Autoencoder]) -> Table:
    rows = []
    for autoencoder in found:
        model = autoencoder.runs[0].settings.model
        validation = [run.metrics.get("autoencoder", {}) for run in autoencoder.runs]
        code = autoencoder.analyses[0]["autoencoder"] if autoencoder.analyses else {}
        rows.append(
            [
                autoencoder.name,
                str(model.depth or "-"),
                str(model.node["net"].get("width", "-")),
                str(code.get("code_channels", model.code_channels or "-")),
                str(code.get("code_numbers", "-")),
                *(_validation(validation, key, digits) for key, digits in (("psnr", 2), ("l1", 4), ("ssim", 3))),
            ]
        )
    columns = ("autoencoder", "depth", "width", "code channels", "code numbers", "PSNR, dB", "L1", "SSIM")
    return Table("Autoencoders, on validation faces (real ones)", columns, rows)


def _validation(of_runs: Sequence[dict[str, Any]], key: str, digits: int) -> str:
    values = [number(content.get(key), digits=digits) for content in of_runs]
    return ", ".join(values)


def _separations(found: Sequence[Autoencoder]) -> Table:
    error = ("errors", "l1", "real_vs_fake")
    rows = [
        [
            a.name,
            str(a.analyses[0]["autoencoder"]["code_channels"]),
            _validation([run.metrics.get("autoencoder", {}) for run in a.runs], "psnr", 2),
            in_lines(over(a.measures(*error, "cohens_d"), signed=True, intervals=True)),
            in_lines(over(a.measures(*error, "mann_whitney", "auc"), intervals=True)),
            in_lines(over(a.measures(*error, "kolmogorov_smirnov", "d"), intervals=True)),
            f"{p_cell(a.worst_p(*error, 'mann_whitney', 'p'))}\n{p_cell(a.worst_p(*error, 'kolmogorov_smirnov', 'p'))}",
            in_lines(over(a.measures("probes", "code", "auroc"), intervals=True)),
            in_lines(over(a.measures("probes", "residual_spectrum", "auroc"), intervals=True)),
        ]
        for a in found
    ]
    columns = (
        "autoencoder",
        "code channels",
        "PSNR, dB",
        "Cohen's d of L1",
        "AUROC of L1 (Mann-Whitney)",
        "Kolmogorov-Smirnov D",
        "p of both, uncorrected",
        "AUROC of a linear probe: code",
        "AUROC of a linear probe: residual spectrum",
    )
    return Table("Real against fake test faces, by autoencoder", columns, rows)


def _caveat(found: Sequence[Autoencoder]) -> Table:
    rows = [
        [
            a.name,
            in_lines(over(a.measures("complexity", "spearman", "l1"), signed=True, intervals=True)),
            in_lines(over(a.measures("complexity", "real_vs_fake", "cohens_d"), signed=True, intervals=True)),
            in_lines(over(a.measures("errors", "l1", "real_vs_fake", "cohens_d"), signed=True, intervals=True)),
            in_lines(over(a.measures("complexity", "l1_given_complexity", "cohens_d"), signed=True, intervals=True)),
        ]
        for a in found
    ]
    columns = (
        "autoencoder",
        "Spearman with L1, real faces",
        "d of complexity",
        "d of L1",
        "d of L1, complexity taken out",
    )
    name = found[0].analyses[0]["complexity"]["name"]
    return Table(f"The caveat: busy pictures are harder to copy, whoever made them ({name})", columns, rows)


def _by_autoencoder(index: int, autoencoder: Autoencoder) -> Section:
    run = autoencoder.analysed
    assert run is not None
    several = f" of seed {run.settings.seed}" if len(autoencoder.runs) > 1 else ""
    errors = autoencoder.analyses[0]["errors"]
    sources = list(errors["l1"]["by_source"])
    rows = []
    for source in sources:
        first = errors["l1"]["by_source"][source]
        cells = [in_lines(_mean_error(errors, name, source)) for name in ERRORS]
        rows.append([f"{source} ({first['label']})", str(first["n"]), *cells, _effect(errors, source)])
    table = Table(
        f"{autoencoder.name}{several}: mean error of test faces by source",
        ("source", "faces", *ERRORS.values(), "Cohen's d of L1 against real faces"),
        rows,
    )
    pictures = [
        Figure(
            f"analysis_{index}_{path.stem}".lower().replace("-", "_"),
            _picture(path),
            f"{path.stem.replace('_', ' ')} of {autoencoder.name}",
            f"{PICTURES.get(path.stem, path.stem.replace('_', ' '))}: {autoencoder.name}{several}"
            f"{', all test faces of the run' if autoencoder.about else ''}.",
        )
        for path in sorted((run.path / ANALYSIS).glob("*.png"))
    ]
    sheets = [figure for figure in pictures if figure.name.endswith(SHEET)]
    plots = [figure for figure in pictures if figure not in sheets]
    return Section(autoencoder.name, [table, *([Gallery(plots)] if plots else []), *sheets])


def _about(autoencoder: Autoencoder) -> str:
    about = autoencoder.about
    return f"Numbers of this chapter are about {about}; its pictures show all test faces of the runs" if about else ""


def _effect(errors: dict[str, Any], source: str) -> str:
    found = errors["l1"].get("by_generator", {}).get(source)
    return "-" if found is None else in_lines(measured(found["cohens_d"], signed=True))


def _mean_error(errors: dict[str, Any], name: str, source: str) -> str:
    of_source = errors.get(name, {}).get("by_source", {}).get(source)
    return "-" if of_source is None else measured(of_source["mean"])


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """The model's name, with what else of it varies, and a number where that is not enough."""
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


def _code_numbers(run: FinishedRun) -> int:
    model = run.settings.model
    width = model.node["net"].get("width", 0)
    return model.code_channels if model.code_channels is not None else 4 * width if isinstance(width, int) else 0


def _file(run: FinishedRun) -> Path:
    return run.path / ANALYSIS / "analysis.json"


def _read(run: FinishedRun) -> dict[str, Any]:
    return read_json(_file(run), _CURE)


def _picture(path: Path) -> bytes:
    """One of the analysis' pictures: a run may come from elsewhere, and what a report shows is handed on.

    Raises:
        FakeganError: a link, which could be to anything here, or no PNG.
    """
    if path.is_symlink() or path.parent.is_symlink():
        raise FakeganError(f"{path} is a link, which an analysis never writes: {_CURE}")
    content = path.read_bytes() if path.is_file() and path.stat().st_size <= _MAX_PICTURE_BYTES else b""
    if not (content.startswith(_PNG) and _PICTURE_NAME.fullmatch(path.stem)):
        raise FakeganError(f"{path} is damaged or of another version: it is no picture of an analysis; {_CURE}")
    return content
