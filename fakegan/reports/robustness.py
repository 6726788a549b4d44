"""The report's chapter on degraded faces: how far the AUROC drops, and curves against strength, a line for each run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakegan.evaluation import plots
from fakegan.reports.groups import fingerprint
from fakegan.reports.render import Block, Figure, Gallery, Section, Table, Text
from fakegan.reports.tables import NO_PLOTS, drawn
from fakegan.runs.finished import FinishedRun
from fakegan.runs.robustness import ALL, SIDES, Part, read_robustness

_WORDS = (
    "Test faces after what happens to pictures in the world, scored at the threshold of each run. Where reals alone, "
    "or fakes alone, are degraded, a detector that goes by traces of editing is found out (arXiv:2605.31153): "
    "degrading both classes hides it. A drop is the AUROC of the faces as they are less that of the degraded ones. The "
    "mean gives each kind of degradation the same weight; the interval of the worst does not allow for its selection. "
    "robustness.json in the folder of each run has every number."
)


def chapter(
    runs: Sequence[FinishedRun],
    called: Mapping[Path, str],  # the configurations' names, by the folder of each run
) -> list[Block]:
    """A section for each set of faces that runs were tested on degraded; nothing where no run was."""
    alike: dict[tuple[Any, ...], dict[str, Part]] = {}
    titles: defaultdict[tuple[Any, ...], dict[str, None]] = defaultdict(dict)  # a run may have another threshold
    names = [called.get(run.folder, run.settings.label()) for run in runs]
    for run, name in zip(runs, names, strict=True):
        found = read_robustness(run.folder)
        for kind, part in found.parts.items() if found else ():
            generators = "" if kind == ALL else f", {kind} generators ({', '.join(part.generators)})"
            what = "original files" if found and found.originals else "the store's pixels"
            faces = (fingerprint(run), *run.scores.files.tolist(), part.n_real, part.n_fake)
            key = (f"{generators}: {what} degraded", *faces, part.strengths())
            titles[key][run.scored] = None
            seed = f", seed {run.settings.seed}" if names.count(name) > 1 else ""
            alike.setdefault(key, {})[name + seed] = part
    sections = [
        Section("; ".join(titles[key]) + key[0], [_drops(parts), *pictures(parts, f"robustness_{i}")])
        for i, (key, parts) in enumerate(alike.items())
    ]
    return [Text(_WORDS), *sections] if sections else []


def _drops(parts: Mapping[str, Part]) -> Table:
    rows = [
        {
            "run": name,
            "AUROC as they are": _cell(part.clean.measures["both"]),
            **{f"mean drop, {words}": _cell(part.mean_drop[side]) for side, words in SIDES.items()},
            "worst drop": str(part.worst).replace(": ", "\n"),
        }
        for name, part in parts.items()
    ]
    first = next(iter(parts.values()))
    return Table(f"Drops of the AUROC: {first.n_real} real and {first.n_fake} fake faces", rows)


def _cell(value: object) -> str:
    return str(value).replace(" [", "\n[")


def pictures(parts: Mapping[str, Part], name: str) -> list[Block]:
    """`figures` of as many runs as there are colours, and of the next ones."""
    if not plots.available():
        return [Text(NO_PLOTS)]
    from fakegan.stages.robustness import figures  # and torch, which the process of a sweep does without

    shown: list[Figure] = []
    for start in range(0, len(parts), len(plots.COLOURS)):
        alike = dict(list(parts.items())[start : start + len(plots.COLOURS)])
        for of, (words, plot) in figures(alike).items():
            caption = f"{words}, against the strength of each degradation; bands are 95% intervals."
            shown.append(drawn(plot, f"{name}_{start}_{of}", f"{words}: {', '.join(alike)}", caption))
    return [Gallery(shown)]
