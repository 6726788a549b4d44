"""python -m fakegan.predict: pictures to verdicts, by the detector of a run; no store, no training.

Pictures stream: they are read in worker processes, scored in batches, and their rows written at once.
"""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before libraries that take long to load

import argparse
import csv
import io
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from tqdm import tqdm

from fakegan.cli.commands import Parser, add_max_megapixels, at_least, path, run, share
from fakegan.data.build import count_pictures, read_pictures
from fakegan.data.damage import unchecked
from fakegan.data.formats import describe_left_out
from fakegan.data.verdict_sheet import FORMATS
from fakegan.errors import UsageError
from fakegan.evaluation.occlusion import PATCHES
from fakegan.evaluation.verdicts import VERDICTS, Row
from fakegan.grid import MOST, Grid
from fakegan.judge import Judge
from fakegan.loading import detector_of
from fakegan.system.log import quiet
from fakegan.system.places import shown
from fakegan.system.processes import cores

DIGITS, MOST_DIGITS = 3, 9  # decimals of a score in the table
_COMMAND = shown("predict")

_EXAMPLES = f"""examples:
  {_COMMAND} --run outputs/... photo.jpg more/photos faces.zip
  {_COMMAND} --run outputs/... photos --format csv > scores.csv
  {_COMMAND} --run outputs/... photos --grid faces.pdf --explain
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the verdicts; returns the exit code: 0, 1 failure or an unreadable picture, 2 usage, 130 stopped."""
    return run("predict", _predict, arguments, stopped="the rows so far are whole.")


def _predict(words: list[str]) -> int:
    options = _parser().parse_args(words)
    _refuse(options)
    detector = detector_of(options.run, options.device, options.trust)
    detector.decide_at(options.threshold, options.max_false_alarms)
    detector.geometry = replace(detector.geometry, max_megapixels=options.max_megapixels)
    grid = Grid(detector, options.grid, options.explain) if options.grid else None
    verdicts, left_out = Counter[str](), Counter[str]()
    # With the rows on the same terminal it would stand between them.
    has_bar = sys.stderr.isatty() and not sys.stdout.isatty() and not quiet()
    total = count_pictures(options.paths) if has_bar else 0

    def rows(bar: tqdm[None]) -> Iterator[Row]:
        outcomes = read_pictures(options.paths, detector.geometry, options.workers, left_out)
        for outcome, row in detector.rows(outcomes):
            verdicts[row.verdict] += 1
            if grid:
                grid.add(outcome, row)
            bar.update()
            yield row

    with tqdm(total=total, unit=" pictures", disable=not has_bar) as bar:
        _WRITERS[options.format](rows(bar), _digits(detector))
    stream = sys.stdout if options.format == "table" else sys.stderr
    warning = f"warning: {guessing}" if (guessing := detector.guessing()) else ""
    notes = (_closing(verdicts, detector), warning, unchecked(), describe_left_out(left_out))
    for note in filter(None, notes):
        print(note, file=stream)
    if grid:
        print(grid.draw(sys.stderr.isatty() and not quiet()), file=stream)
    return int(verdicts[""] > 0)


def _refuse(options: argparse.Namespace) -> None:
    grid: Path | None = options.grid
    if not any(os.path.exists(path) for path in options.paths):
        raise UsageError(f"{options.paths[0]} does not exist: give picture files, folders or zip archives")
    if options.explain and not grid:
        raise UsageError("--explain draws into the file of --grid: name one, as in --grid faces.png --explain")
    if grid and grid.suffix.lower() not in FORMATS:
        raise UsageError(f"--grid {grid}: name a file that ends in {', '.join(FORMATS)}")
    if grid and grid.exists():
        raise UsageError(f"--grid {grid} is there already: name another file, or delete it first")
    if grid and not grid.absolute().parent.is_dir():
        raise UsageError(f"--grid {grid}: there is no folder {grid.parent}")


def _closing(verdicts: Counter[str], detector: Judge) -> str:
    counts = [f"{verdicts[name]:,} {name}" for name in VERDICTS if verdicts[name]]
    counts += [f"{verdicts['']:,} not read"] if verdicts[""] else []
    (low, high), digits = detector.band, _digits(detector)
    between = f"; unsure from {low:.{digits}f} to {high:.{digits}f}" if low < high else ""
    return (
        f"{verdicts.total():,} {'picture' if verdicts.total() == 1 else 'pictures'}: {', '.join(counts)}. "
        f"Called fake from P(fake) {detector.threshold:.{digits}f}{between}. "
        "P(fake) holds where fakes are as frequent as among the run's validation faces."
    )


def _digits(detector: Judge) -> int:
    """Decimals of a score: more than three where a narrow band says that scores hardly differ."""
    low, high = detector.band
    return min(max(DIGITS, 1 - math.floor(math.log10(high - low))), MOST_DIGITS) if low < high else DIGITS


def _write_table(rows: Iterable[Row], digits: int) -> None:
    width = max(digits + 2, len("P(fake)"))
    print(f"{'P(fake)':>{width}}  call  {'verdict':<8}  picture")
    for row in rows:
        score = "-" if row.score is None else f"{row.score:.{digits}f}"
        note = f": {row.error}" if row.error else f"  ({row.warning})" if row.warning else ""
        # Line ends, control characters and bytes that are no text as escapes, so that no name can forge a row.
        line = f"{score:>{width}}  {row.call or '-':<4}  {row.verdict or 'not read':<8}  {row.file}{note}"
        print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


def _write_csv(rows: Iterable[Row], _: int) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # as faces.csv: names keep their bytes
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(column.name for column in fields(Row))
    lines.writerows(asdict(row).values() for row in rows)


def _write_json(rows: Iterable[Row], _: int) -> None:
    """An array, row by row; a failure or Ctrl-C leaves it open, so that no reader takes it for whole."""
    opening = "["
    for row in rows:
        print(f"{opening}\n{json.dumps(asdict(row))}", end="")
        opening = ","
    print("\n]")


_Writer = Callable[[Iterable[Row], int], None]  # with the decimals that people want; programs get all
_WRITERS: dict[str, _Writer] = {"table": _write_table, "csv": _write_csv, "json": _write_json}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="Real or fake: a verdict on each picture, by the detector of a finished run.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("paths", nargs="+", type=path, metavar="PATH", help="picture, folder (searched through) or .zip")
    add("--run", type=path, required=True, metavar="DIR", help="the run's folder, or a file that fakegan.export wrote")
    add("--format", choices=tuple(_WRITERS), default="table", help="a table to read (default), or for programs")
    add(
        "--grid", type=path, metavar="FILE.png", help=f"draws the first {MOST} faces with their scores; .jpg, .pdf, too"
    )
    costs = f"draws there where each score comes from, too; takes {PATCHES**2 + 1} scores a face"
    add("--explain", action="store_true", help=costs)
    add("--threshold", type=share, metavar="P", help="P(fake) from which a picture is called fake (the run's own)")
    alarms = "instead: the threshold that at most this share of real faces reaches, by validation; as in 0.01"
    add("--max-false-alarms", type=share, metavar="SHARE", help=alarms)
    add_max_megapixels(parser)
    add("--workers", type=at_least(1), default=cores(), metavar="N", help="processes that read (default: cores)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to score (auto)")
    add("--trust", action="append", default=[], metavar="NAME", help="a package whose code the run's file may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
