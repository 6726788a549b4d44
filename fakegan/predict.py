"""python -m fakegan.predict: pictures to verdicts, by the detector of a run; no store, no training.

Pictures stream: they are read in worker processes, scored in batches, and their rows written at once.
"""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before what takes long to load

import argparse
import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fakegan.cli.commands import Parser, ProgressLine, add_max_megapixels, at_least, path, run
from fakegan.data.build import Outcome, Progress, count_pictures, read_pictures
from fakegan.data.damage import unchecked
from fakegan.data.formats import describe_left_out
from fakegan.data.images import Pixels
from fakegan.data.sheets import sheet, stack, write_png
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.verdicts import UNSURE, Row
from fakegan.runs.config_file import run_at
from fakegan.runs.results import VERDICTS
from fakegan.system.places import shown
from fakegan.system.processes import cores
from fakegan.system.shell import expanded
from fakegan.views import RESIDUAL_GAIN

if TYPE_CHECKING:  # torch takes seconds to import: only once the words are understood
    from fakegan.detector import Detector

_COMMAND = shown("predict")
_GRID_FACES = 60
_GRID_COLUMNS = 10

_EXAMPLES = f"""examples:
  {_COMMAND} --run outputs/... photo.jpg more/photos faces.zip
  {_COMMAND} --run outputs/... photos --format csv > scores.csv
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the verdicts; returns the exit code: 0, 1 failure or an unreadable picture, 2 usage, 130 stopped."""
    return run("predict", _predict, arguments, stopped="the rows so far are whole.")


def _predict(words: list[str]) -> int:
    options = _parser().parse_args(words)
    _refuse(options)
    detector = detector_of(options.run, options.device, options.trust)
    detector.geometry = replace(detector.geometry, max_megapixels=options.max_megapixels)
    grid = Grid(detector, options.grid) if options.grid else None
    verdicts, left_out = Counter[str](), Counter[str]()
    with ProgressLine() if sys.stderr.isatty() and not sys.stdout.isatty() else nullcontext() as progress:
        outcomes = read_pictures(options.paths, detector.geometry, options.workers, left_out)
        total = count_pictures(options.paths) if progress else 0
        rows = _rows(detector, outcomes, total, grid, progress)
        _WRITERS[options.format](_counted(rows, verdicts))
    told = sys.stdout if options.format == "table" else sys.stderr
    print(_closing(verdicts, detector), file=told)
    if sentence := unchecked():
        print(sentence, file=told)
    if left_out:
        print(describe_left_out(left_out), file=told)
    if grid:
        print(grid.draw(), file=told)
    return int(verdicts[""] > 0)


def detector_of(run: str | os.PathLike[str], device: str, trust: Sequence[str] = ()) -> Detector:
    """The detector of a run, by its folder or detector.pt; `fakegan.load` says more.

    Raises:
        FakeganError: no such run or device; where the path is a folder of runs, it names some.
    """
    with signals.exit_at_once():  # torch takes long to load, and leaves nothing to be undone
        from fakegan.detector import Detector
        from fakegan.runs.folder import DETECTOR_FILE
        from fakegan.system.devices import use_device

    place = Path(expanded(run) if isinstance(run, str) else run)
    if place.is_dir() and not (place / DETECTOR_FILE).is_file():
        run_at(place)  # says where there are runs, if it is none itself
    return Detector.load(place, use_device(device), trust)


def _refuse(options: argparse.Namespace) -> None:
    if not any(os.path.exists(path) for path in options.paths):
        raise UsageError(f"{options.paths[0]} does not exist: give picture files, folders or zip archives")
    if options.grid and options.grid.suffix.lower() != ".png":
        raise UsageError(f"--grid {options.grid}: name a file that ends in .png")
    if options.grid and options.grid.exists():
        raise UsageError(f"--grid {options.grid} is there already: name another file, or delete it first")
    if options.grid and not options.grid.absolute().parent.is_dir():
        raise UsageError(f"--grid {options.grid}: there is no folder {options.grid.parent}")


def _rows(
    detector: Detector,
    outcomes: Iterator[tuple[str, Outcome]],
    total: int,  # of them; counts only where progress is shown
    grid: Grid | None,
    progress: Progress | None,
) -> Iterator[Row]:
    """One row a picture, in order."""
    for done, (outcome, row) in enumerate(detector.judged(outcomes), start=1):
        if grid:
            grid.add(outcome, row)
        if progress:
            progress(done, total)
        yield row


def _counted(rows: Iterable[Row], verdicts: Counter[str]) -> Iterator[Row]:
    for row in rows:
        verdicts[row.verdict] += 1
        yield row


def _closing(verdicts: Counter[str], detector: Detector) -> str:
    counts = [f"{verdicts[name]:,} {name}" for name in (*VERDICTS, UNSURE) if verdicts[name]]
    counts += [f"{verdicts['']:,} not read"] if verdicts[""] else []
    low, high = detector.band
    between = f"; unsure from {low:.3f} to {high:.3f}" if low < high else ""
    return (
        f"{verdicts.total():,} {'picture' if verdicts.total() == 1 else 'pictures'}: {', '.join(counts)}. "
        f"Fake from P(fake) {detector.threshold:.3f}{between}. "
        "P(fake) holds where fakes are as frequent as among the run's validation faces."
    )


def _write_table(rows: Iterable[Row]) -> None:
    print(f"P(fake)  {'verdict':<8}  picture")
    for row in rows:
        score = "-" if row.score is None else f"{row.score:.3f}"
        said = f": {row.error}" if row.error else f"  ({row.warning})" if row.warning else ""
        print(f"{score:>7}  {row.verdict or 'not read':<8}  {_on_one_line(row.file + said)}")


def _on_one_line(text: str) -> str:
    """Line ends, control characters and bytes that are no text as escapes, so that no name can forge a row."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _write_csv(rows: Iterable[Row]) -> None:
    _set_stdout(encoding="utf-8", errors="surrogateescape", newline="")  # as faces.csv: names keep their bytes
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(field.name for field in fields(Row))
    lines.writerows(asdict(row).values() for row in rows)


def _write_json(rows: Iterable[Row]) -> None:
    """One array, row by row; a failure or Ctrl-C leaves it open, so that no reader takes it for whole."""
    opening = "["
    for row in rows:
        print(f"{opening}\n{json.dumps(asdict(row))}", end="")
        opening = ","
    print("\n]")


def _set_stdout(**settings: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**settings)


_WRITERS: dict[str, Callable[[Iterable[Row]], None]] = {"table": _write_table, "csv": _write_csv, "json": _write_json}


class Grid:
    """The first faces with their scores, as a picture; above the score what the run's autoencoder makes of them."""

    def __init__(self, detector: Detector, path: Path) -> None:
        self.detector = detector
        self.path = path
        self._faces: list[Pixels] = []
        self._captions: list[str] = []
        self._count = 0  # of all faces, drawn or not

    def add(self, outcome: Outcome, row: Row) -> None:
        """Keeps a face that is still wanted."""
        if isinstance(outcome, str):
            return
        self._count += 1
        if len(self._faces) < _GRID_FACES:
            self._faces.append(outcome.pixels)
            self._captions.append(f"{row.score:.2f} {row.verdict}")

    def draw(self) -> str:
        """Writes the picture; returns the sentence that says so."""
        if not self._faces:
            return f"{self.path} was not drawn: no picture could be read."
        rows = self._rows(np.stack(self._faces))
        bands = [
            sheet([row[at : at + _GRID_COLUMNS] for row in rows], self._captions[at : at + _GRID_COLUMNS])
            for at in range(0, len(self._faces), _GRID_COLUMNS)
        ]
        try:
            write_png(self.path, stack(bands))
        except OSError as error:
            raise FakeganError(f"{self.path} could not be written ({error.strerror}): name another --grid") from error
        which = "all" if self._count == len(self._faces) else f"the first {len(self._faces)} of"
        return f"{self.path}: {which} {self._count:,} faces with their scores."

    def _rows(self, faces: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:  # (F, 64, 64, 3), of each row
        import torch

        from fakegan.detector import reconstruct

        if self.detector.autoencoder is None:
            return [faces]
        pixels = torch.from_numpy(faces).to(self.detector.device)
        recon = reconstruct(self.detector.autoencoder, pixels).cpu().numpy()
        residual = np.abs(recon.astype(np.int16) - faces) * RESIDUAL_GAIN
        return [faces, recon, residual.clip(max=255).astype(np.uint8)]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="Real or fake: a verdict on each picture, by the detector of a finished run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", nargs="+", type=path, metavar="PATH", help="picture, folder (searched through) or .zip")
    add("--run", type=path, required=True, metavar="DIR", help="the run's directory, or its detector.pt")
    add("--format", choices=tuple(_WRITERS), default="table", help="a table to read (default), or for programs")
    add("--grid", type=path, metavar="FILE.png", help=f"draws the first {_GRID_FACES} faces with their scores")
    add_max_megapixels(parser)
    add("--workers", type=at_least(1), default=cores(), metavar="N", help="processes that read (default: cores)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to score (auto)")
    add("--trust", action="append", default=[], metavar="NAME", help="a package whose code the run's file may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
