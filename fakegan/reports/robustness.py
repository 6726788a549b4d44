"""The report's chapter on degraded faces: how far the AUROC falls, and curves against strength, run beside run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakegan.evaluation import plots
from fakegan.reports.groups import fingerprint
from fakegan.reports.numbers import cell
from fakegan.reports.render import Block, Figure, Gallery, Section, Table, Text
from fakegan.reports.tables import NO_PLOTS, drawn
from fakegan.runs.finished import FinishedRun
from fakegan.runs.robustness import ALL, MEASURES, WORDS, Part, measure, read_robustness
from fakegan.stages.robustness import curve, curves

_WORDS = (
    "Test faces after what happens to pictures in the world, scored at the run's own threshold. Where reals alone, or "
    "fakes alone, are degraded, a detector that goes by traces of editing is found out (arXiv:2605.31153): degrading "
    "both classes hides it. A drop is the AUROC of the faces as they are less that of the degraded ones. The mean "
    "gives each kind of degradation the same weight, and the interval of the worst does not allow for its selection."
)


def chapter(
    runs: Sequence[FinishedRun],
    called: Mapping[Path, str],  # the configurations' names, by the folder of each run
) -> list[Block]:
    """A section for each set of faces that runs were tested on degraded; nothing where no run was."""
    alike: dict[tuple[Any, ...], dict[str, Part]] = {}
    for run in runs:
        found = read_robustness(run.folder)
        for name, part in found.parts.items() if found else ():
            faces = f"{run.scored}{'' if name == ALL else f', {name} generators'}"
            on = "original files" if found and found.originals else "the store's pixels"
            key = (faces, on, fingerprint(run), part.generators, part.n_real, part.n_fake)
            alike.setdefault(key, {})[_name(run, called, runs)] = part
    sections = [
        Section(f"{key[0]}: {key[1]} degraded", _of_faces(parts, f"robustness_{i}"))
        for i, (key, parts) in enumerate(alike.items())
    ]
    return [Text(_WORDS), *sections] if sections else []


def _name(run: FinishedRun, called: Mapping[Path, str], runs: Sequence[FinishedRun]) -> str:
    name = called.get(run.folder, run.settings.label())
    several = sum(called.get(other.folder) == name for other in runs) > 1
    return f"{name}, seed {run.settings.seed}" if several else name


def _of_faces(parts: Mapping[str, Part], picture: str) -> list[Block]:
    """The drops of all runs, their curves in common pictures, and each run's numbers."""
    rows = [
        {
            "run": name,
            "AUROC as they are": _cell(part.clean.auroc),
            **{f"mean drop, {words}": _cell(getattr(part.mean_drop, side)) for side, words in WORDS.items()},
            "worst drop": str(part.worst).replace(": ", "\n"),
        }
        for name, part in parts.items()
    ]
    first = next(iter(parts.values()))
    caption = f"Drops of the AUROC: {first.n_real} real and {first.n_fake} fake faces"
    blocks: list[Block] = [Table(caption, rows)]
    blocks += [Gallery(_pictures(parts, picture))] if plots.available() else [Text(NO_PLOTS)]
    return [*blocks, *(_numbers(name, part) for name, part in parts.items())]


def _pictures(parts: Mapping[str, Part], picture: str) -> list[Figure]:
    """A picture for each measure with a curve for each run, as many as there are colours."""
    names, step = list(parts), len(plots.COLOURS)
    shown = []
    for start in range(0, len(names), step):
        alike = names[start : start + step]
        for of, words in MEASURES.items():
            plot = curves({name: curve(parts[name], of) for name in alike}, words)
            caption = f"{words}: against the strength of each degradation; bands are 95% intervals."
            shown.append(drawn(plot, f"{picture}_{start // step}_{of}", f"{words}: {', '.join(alike)}", caption))
    return shown


def _numbers(name: str, part: Part) -> Table:
    rows = [
        {
            "degradation": "none" if kind is None else f"{kind.kind} {kind.strength:g}",
            **{words: _cell(measure(part.clean if kind is None else kind, of)) for of, words in MEASURES.items()},
        }
        for kind in (None, *part.settings)
    ]
    return Table(f"{name}: every degradation", rows)


def _cell(estimate: Any) -> str:
    return cell([vars(estimate)])
