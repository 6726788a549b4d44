"""The end of the data path: a set of finished runs becomes report.html, report.md and tables for programs."""

from __future__ import annotations

import csv
import io
import json
import shutil
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import fakegan
from fakegan.errors import FakeganError
from fakegan.reports.answers import answers
from fakegan.reports.faces import data, mistakes, opened
from fakegan.reports.groups import Group, group_letter, grouped, of_seeds
from fakegan.reports.numbers import ALPHA, measured, over, p_words
from fakegan.reports.reconstruction import Autoencoder, autoencoders, chapter
from fakegan.reports.render import Answer, Block, Items, Report, Section, Text, figures, to_html, to_markdown
from fakegan.reports.tables import (
    by_source,
    curves,
    own_tasks,
    pairs,
    plain_numbers,
    provenance,
    seed_rows,
    seeds,
    side_by_side,
)
from fakegan.runs.finished import FinishedRun, shown_path
from fakegan.runs.folder import METRICS_FILE, PICTURES_FOLDER, REPORT_FILE
from fakegan.runs.ledger import command as own_command
from fakegan.runs.results import TABLE_WIDTH, columns
from fakegan.runs.settings import RunSettings
from fakegan.system.files import replacing

LISTED = 10  # significant pairs on the terminal, at most
_HOW_TO_READ = (
    "Labels are real 0 and fake 1; a score is P(fake). The threshold was chosen on validation faces alone.",
    "AUROC is the chance that a random fake scores above a random real face: 0.5 is guessing, higher is better at "
    "telling fakes. FPR is the share of real faces called fake. EER is the error where both kinds are equal; lower is "
    "better. ECE is the mean distance between P(fake) and the share of fakes; lower is better.",
    "Intervals are 95% by bootstrap over groups: a person or origin is drawn with all its faces together.",
    "Differences are tested on the same faces: AUROC by paired bootstrap (with several seeds, Student's t on faces and "
    "seeds together), verdicts by McNemar's test; p-values are after Holm's correction, and below 0.05 count as shown. "
    "With one seed a configuration, a verdict is on those trained networks; it takes several seeds to speak of how "
    "they would be trained again.",
    "Cohen's d is a difference of means in standard deviations: 0.2 is called small, 0.5 medium, 0.8 large.",
)


def report_sweep(settings: Sequence[RunSettings], folder: Path) -> str:
    """The report of a sweep, into its own folder, on the runs of it that have finished."""
    finished = [FinishedRun(run, run.paths.run_dir) for run in settings if (run.paths.run_dir / METRICS_FILE).is_file()]
    return write_report(finished, folder, own_command())


def write_report(
    runs: Sequence[FinishedRun],
    folder: Path,  # a new or empty one, or a sweep's
    command: str,  # that asks for the report: printed in it
) -> str:
    """Write report.html, report.md with its pictures, comparison.json and seeds.csv; a short text for the terminal.

    Runs on different faces are not compared; the report then has a chapter for each lot of faces. An earlier report
    in the folder is replaced, report.html last.

    Raises:
        FakeganError: no runs, damaged files of a run, or the same configuration and seed twice.
    """
    if not runs:
        raise FakeganError(f"{folder} has no finished run to report on: let one finish first")
    groups, found = grouped(runs), autoencoders(runs)
    said = answers(groups, found)
    report = _report(runs, groups, found, said, command)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FakeganError(f"{folder} cannot be made ({error.strerror}): name another out=DIR") from error
    _write_pictures(folder / PICTURES_FOLDER, report)
    comparison = {"groups": [plain_numbers(group) for group in groups]}
    _write(folder / "comparison.json", json.dumps(comparison, indent=2, allow_nan=False))
    rows = seed_rows(groups)
    if rows:
        _write(folder / "seeds.csv", _csv(rows))
    _write(folder / "report.md", to_markdown(report))
    _write(folder / REPORT_FILE, to_html(report))
    return _closing_words(groups, said, folder / REPORT_FILE)


def _report(
    runs: Sequence[FinishedRun],
    groups: Sequence[Group],
    found: Sequence[Autoencoder],
    said: Sequence[Answer],
    command: str,
) -> Report:
    sections: list[Section] = []
    for i, group in enumerate(groups):
        sections += _of_group(group, f"_{group_letter(i).lower()}" if len(groups) > 1 else "")
    reconstructions = chapter(found)
    sections += [] if reconstructions is None else [reconstructions]
    sections.append(data(runs))
    called = {run.folder: c.name for group in groups for c in group.configurations for run in c.runs}
    where_from: list[Block] = [*provenance(runs, called), Text(f"This report: {command}")]
    sections += [Section("Runs and versions", where_from), Section("How to read it", [Items(_HOW_TO_READ)])]
    return Report("FakeGAN: real faces against fakes", _lead(runs, groups), said, sections)


def _lead(runs: Sequence[FinishedRun], groups: Sequence[Group]) -> str:
    configurations = {c.runs[0].folder for group in groups for c in group.configurations}  # some are in two groups
    parts = [_count(len(runs), "run")]
    if configurations:
        parts.insert(0, _count(len(configurations), "configuration"))
    parts += [f"{len(group.faces)} faces{group.where}: {group.scored}" for group in groups]
    if len({tuple(run.folder for run in group.runs) for group in groups}) > 1:
        parts.append("runs on different faces are not compared")
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"{'; '.join(parts)}. FakeGAN {fakegan.__version__}, {today}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _of_group(
    group: Group,
    name: str,  # added to its pictures' names
) -> list[Section]:
    chapters: list[tuple[str, list[Block]]] = [
        ("Side by side", [*side_by_side(group), *own_tasks(group)]),
        ("By source", by_source(group)),
        ("Curves and scores", curves(group, name)),
        ("Pairs", pairs(group, name)),
        ("Seeds", seeds(group)),
        ("Hardest mistakes", mistakes(group, opened(group.runs[0]), name.removeprefix("_") or "a")),
    ]
    return [Section(f"{title}{group.where}", blocks) for title, blocks in chapters if blocks]


def _write_pictures(folder: Path, report: Report) -> None:
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    for figure in figures(report.sections):
        (building / f"{figure.name}.png").write_bytes(figure.png)
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)


def _write(path: Path, text: str) -> None:
    with replacing(path) as building:
        building.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _csv(rows: Sequence[dict[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _closing_words(groups: Sequence[Group], said: Sequence[Answer], report: Path) -> str:
    lines = []
    for answer in said:
        lines += [answer.question, *_wrapped(f"{answer.verdict}. {answer.sentence}", "  ")]
    for group in groups:
        rows = [(c.name, over(of_seeds(c, "auroc")), over(of_seeds(c, "accuracy"))) for c in group.configurations]
        lines += ["", *_wrapped(f"{len(group.faces)} faces{group.where}: {group.scored}:"), *_in_columns(rows)]
        lines += _significant(group)
    return "\n".join([*lines, f"\nreport: {shown_path(report)}"])


def _in_columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Name, AUROC and accuracy of each: a line each where 80 columns allow, else the numbers below the name."""
    cells = [("", "AUROC", "accuracy"), *rows]
    widths = [max(columns(row[i]) for row in cells) for i in range(3)]
    if sum(widths) + 4 <= TABLE_WIDTH:
        padded = [[c + " " * (w - columns(c)) for c, w in zip(row, widths, strict=True)] for row in cells]
        return ["  ".join(row).rstrip() for row in padded]
    lines = []
    for name, auroc, accuracy in rows:
        lines += [*_wrapped(name), *_wrapped(f"AUROC     {auroc}", "  "), *_wrapped(f"accuracy  {accuracy}", "  ")]
    return lines


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, TABLE_WIDTH, initial_indent=indent, subsequent_indent=indent or "    ")


def _significant(group: Group) -> list[str]:
    found = [c for c in group.comparisons if c.p_auroc_holm < ALPHA]
    if not group.comparisons:
        return []
    head = f"AUROC differs significantly in {len(found)} of {len(group.comparisons)} pairs, after Holm's correction"
    lines = _wrapped(head)
    for c in found[:LISTED]:
        difference = f"{measured(c.auroc_difference, signed=True)}, {p_words(c.p_auroc_holm)}"
        lines += _wrapped(f"{c.a} against {c.b}: {difference}", "  ")
    return [*lines, f"  and {len(found) - LISTED} more, in the report"] if len(found) > LISTED else lines
