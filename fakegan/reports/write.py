"""The end of the data path: a set of finished runs becomes report.html, report.md and tables for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import fakegan
from fakegan.errors import FakeganError
from fakegan.reports import faces, held_out, reconstruction, robustness, tables
from fakegan.reports.answers import NOT_ASKED, answers
from fakegan.reports.groups import Group, group_letter, grouped, of_seeds, one_by_one, together
from fakegan.reports.headline import headline, overview
from fakegan.reports.numbers import counted, measured, over, p_words
from fakegan.reports.render import Answer, Block, Items, Report, Section, Text, figures, to_html, to_markdown
from fakegan.runs.finished import FinishedRun, shown_path, told_apart
from fakegan.runs.folder import METRICS_FILE, PICTURES_FOLDER, REPORT_FILE, REPORT_TEXT_FILE
from fakegan.runs.ledger import command
from fakegan.runs.results import TABLE_WIDTH
from fakegan.runs.settings import RunSettings
from fakegan.system.columns import in_columns, width
from fakegan.system.files import building_folder, csv_table, replacing

MANY = 2  # groups of faces: of more, each is folded in its chapter
LISTED = 10  # significant pairs on the terminal, at most
_HOW_TO_READ = Path(__file__).with_name("how_to_read.txt")  # a paragraph a line


def report_sweep(settings: Sequence[RunSettings], folder: Path) -> str:
    """The report of a sweep on its finished runs, into its own folder."""
    finished = [FinishedRun(run, run.paths.run_dir) for run in settings if (run.paths.run_dir / METRICS_FILE).is_file()]
    return write_report(finished, folder)


def write_report(runs: Sequence[FinishedRun], folder: Path) -> str:
    """Write report.html, report.md with its pictures and tables for programs; returns a short text for the terminal.

    Runs on different faces are not compared: the report then has chapters for each group of faces. The folder is new,
    empty, or a sweep's; an earlier report in it is replaced, report.html last.

    Raises:
        FakeganError: no runs, damaged files of a run, or the same configuration and seed twice.
    """
    if not runs:
        raise FakeganError(f"{folder} has no finished run to report on: let one finish first")
    groups, autoencoders, designs = grouped(runs), reconstruction.autoencoders(runs), held_out.designs(runs)
    against = held_out.against_seen(designs)
    answered = [*held_out.answer(designs, against), *answers(groups, autoencoders)]
    answered = [answer for answer in answered if answer.verdict != NOT_ASKED]
    chapters: list[tuple[str, list[Block]]] = [("Generators held out", held_out.chapter(designs, against))]
    chapters += _of_groups(groups)
    of_data, shortcuts, not_audited = faces.data(runs)
    if any(run.settings.budget.name == "debug" for run in runs):
        shortcuts = ["Runs of +debug=fast are among these: no number of them means anything.", *shortcuts]
    called = {run.folder: c.name for group in groups for c in group.configurations for run in c.runs}
    chapters += [
        ("Robustness", robustness.chapter(runs, called)),
        ("Real faces held out", tables.false_alarms(runs, called)),
        ("Reconstructions", reconstruction.chapter(autoencoders)),
        ("Data", of_data),
        ("Runs and versions", [*tables.provenance(runs, called), Text(f"This report: {command()}")]),
        ("How to read it", [Items(_HOW_TO_READ.read_text(encoding="utf-8").splitlines())]),
    ]
    sections = [Section(title, blocks) for title, blocks in chapters if blocks]
    report = Report(
        title="FakeGAN: real faces against fakes",
        lead=_lead(runs, groups),
        answers=answered,
        sections=sections,
        warnings=shortcuts,
        headline=headline(groups, designs, against, answered),
        overview=[*overview(groups, designs), *map(Text, not_audited)],
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FakeganError(f"{folder} cannot be made ({error.strerror}): name another out=DIR") from error
    _write_files(folder, groups, designs, report)
    designed = {run.folder for design in designs for row in design.rows for run in row.runs}
    others = [group for group in groups if not designed.issuperset(run.folder for run in group.runs)]
    return _closing_words(others, designs, answered, folder / REPORT_FILE)


def _of_groups(groups: Sequence[Group]) -> list[tuple[str, list[Block]]]:
    """A chapter for each subject; of several groups each has a part of it, folded where there are many."""
    chapters: dict[str, list[Block]] = {}
    said: set[tuple[str, str]] = set()  # a paragraph that explains a table stands once
    for i, group in enumerate(groups):
        letter = group_letter(i).lower() if len(groups) > 1 else ""  # for pictures' names
        for title, blocks in _of_group(group, f"_{letter}" if letter else "", letter or "a").items():
            new = [b for b in blocks if not isinstance(b, Text) or b.warning or (title, b.text) not in said]
            said |= {(title, b.text) for b in blocks if isinstance(b, Text)}
            part = Section(f"{group.called[:1].upper()}{group.called[1:]}", new, folded=len(groups) > MANY)
            chapters.setdefault(title, []).extend([] if not blocks else [part] if letter else new)
    for alike in together(groups):
        curves, which = chapters["Curves and scores"], alike[0].of_runs
        pictures = tables.distributions(one_by_one(alike), len(curves), f" ({which})" if which else "")
        folded = [Section(f"Scores: {which}", pictures, folded=True)]
        curves += folded if pictures and len(groups) > MANY else pictures
    return list(chapters.items())


def _of_group(group: Group, name: str, letter: str) -> dict[str, list[Block]]:
    return {
        "Side by side": [*tables.side_by_side(group), *tables.own_tasks(group), *tables.seeds(group)],
        "By source": tables.by_source(group),
        "Curves and scores": tables.curves(group, name),
        "Pairs": tables.pairs(group, name),
        "Hardest mistakes": faces.mistakes(group, faces.opened(group.runs[0]), letter),
    }


def _lead(runs: Sequence[FinishedRun], groups: Sequence[Group]) -> str:
    configurations = {c.runs[0].folder for group in groups for c in group.configurations}  # some are in two groups
    counts = [(len(configurations), "configuration"), (len(runs), "run")]
    parts = [counted(count, thing) for count, thing in counts if count]
    parts += [group.described for group in groups] if len(groups) <= MANY else [f"{len(groups)} sets of faces"]
    if len({tuple(run.folder for run in group.runs) for group in groups}) > 1:
        parts.append("runs on different faces are not compared")
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"{'; '.join(parts)}. FakeGAN {fakegan.__version__}, {today}."


def _write_files(folder: Path, groups: Sequence[Group], designs: Sequence[held_out.Design], report: Report) -> None:
    with building_folder(folder / PICTURES_FOLDER) as building:
        for figure in figures([*report.overview, *report.sections]):
            (building / f"{figure.name}.png").write_bytes(figure.png)
    comparison = {"groups": [tables.plain_numbers(group) for group in groups]}
    files = {"comparison.json": json.dumps(comparison, indent=2, allow_nan=False)}
    for name, rows in (("seeds.csv", tables.seed_rows(groups)), ("held_out.csv", held_out.cells(designs))):
        if rows:
            with (
                replacing(folder / name) as building,
                csv_table(building, list(rows[0]), errors="backslashreplace") as lines,
            ):
                lines.writerows([row.get(column, "") for column in rows[0]] for row in rows)
    files |= {REPORT_TEXT_FILE: to_markdown(report), REPORT_FILE: to_html(report)}
    for name, content in files.items():
        with replacing(folder / name) as path:
            path.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")


def _closing_words(
    groups: Sequence[Group], designs: Sequence[held_out.Design], answered: Sequence[Answer], report: Path
) -> str:
    lines = []
    for answer in answered:
        lines += [answer.question, *_wrapped(f"{answer.verdict}. {answer.sentence}", "  ")]
    for design in designs:
        table = design.as_text()
        lines += ["", *_wrapped(f"{design.name}: AUROC; * never seen")]
        lines += table if max(map(width, table)) <= TABLE_WIDTH else ["  (the matrix is in the report)"]
        lines += _wrapped(design.in_words())
    for group in groups:
        common, names, table = _table(group)
        lines += ["", *_wrapped(f"{group.described}; {common}" if common else group.described), *table]
        significant = [c for c in group.comparisons if c.outcome]
        if group.comparisons:
            counts = f"{len(significant)} of {counted(len(group.comparisons), 'pair')}"
            lines += _wrapped(f"AUROC differs significantly in {counts}, after Holm's correction")
        short = dict(zip((c.name for c in group.configurations), names, strict=True))
        for c in significant[:LISTED]:
            difference = f"{measured(c.auroc_difference, signed=True)}, {p_words(c.p_auroc_holm)}"
            lines += _wrapped(f"{short[c.a]} against {short[c.b]}: {difference}", "  ")
        if len(significant) > LISTED:
            lines.append(f"  and {len(significant) - LISTED} more, in the report")
    return "\n".join([*lines, f"\nreport: {shown_path(report)}"])


def _table(group: Group) -> tuple[str, list[str], list[str]]:
    """AUROC and accuracy, a line for each configuration: what all names share, the rest of each, and the lines.

    The values of the seeds are there where they fit. Where names are too long, they are numbers, explained above.
    """
    common, names = told_apart([c.name for c in group.configurations])
    seeds = [str(len(c.runs)) for c in group.configurations]
    numbers = [[over(of_seeds(c, name)) for name in ("auroc", "accuracy")] for c in group.configurations]
    means = [[text.partition(" (")[0] for text in row] for row in numbers]

    def drawn(names: Sequence[str], numbers: Sequence[Sequence[str]]) -> list[str]:
        rows = ((name, n, *row) for name, n, row in zip(names, seeds, numbers, strict=True))
        return in_columns([("", "seeds", "AUROC", "accuracy"), *rows])

    for cells in (numbers, means):
        if max(map(width, drawn(names, cells))) <= TABLE_WIDTH:
            return common, names, drawn(names, cells)
    signs = [f"#{i}" for i in range(1, len(names) + 1)]
    explained = [line for sign, name in zip(signs, names, strict=True) for line in _wrapped(f"{sign}  {name}")]
    return common, signs, [*explained, *drawn(signs, means)]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, TABLE_WIDTH, initial_indent=indent, subsequent_indent=indent or "    ")
