"""python -m fakegan.export: a finished run as one file to hand on, without a pickle, or as ONNX; with a model card."""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before libraries that take long to load

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fakegan.cli.commands import Parser, new_path, path, run
from fakegan.errors import UsageError
from fakegan.runs.folder import ONNX, PORTABLE
from fakegan.system.files import disk_errors, replacing
from fakegan.system.places import shown
from fakegan.system.shell import called, local_path

if TYPE_CHECKING:  # --help does not wait for torch
    from fakegan.detector import Detector

_COMMAND = shown("export")
_FORMATS = {PORTABLE: "fakegan", ONNX: "onnx"}
_CHECKED = 256  # faces that ONNX and torch score alike before a file is kept

_EXAMPLES = f"""examples:
  {_COMMAND} --run outputs/RUN --out detector.fakegan
  {_COMMAND} --run outputs/RUN --out detector.onnx    # the whole pipeline, for onnxruntime alone
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; returns the exit code: 0, 1 failure, 2 usage, 130 stopped."""
    return run("export", _export, arguments, stopped="nothing was written.")


def _export(words: list[str]) -> int:
    options = _parser().parse_args(words)
    format, card_file = options.format or _FORMATS.get(options.out.suffix.lower(), ""), options.card
    _refuse(options.out, format, card_file)
    with signals.exit_at_once():  # torch takes long to load, and leaves nothing to be undone
        from fakegan.detector import Detector
        from fakegan.reports.card import model_card
        from fakegan.runs.config_file import read_run, run_at
        from fakegan.runs.finished import LEARNT_FROM, FinishedRun
        from fakegan.runs.portable import save_portable

    folder = run_at(options.run)
    detector = Detector.load(folder, trust=options.trust)
    card = model_card(folder, detector)
    learnt_from = sorted(FinishedRun(read_run(str(folder)), folder).learnt_from)
    if format == "onnx":
        apart = _write_onnx(detector, options.out, card, learnt_from)
        print(f"{options.out}: scores as torch's, at most {apart:.1e} apart on {_CHECKED} faces")
    else:
        save_portable({**detector.content(), LEARNT_FROM: learnt_from}, options.out, card)
        print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB")
    if card_file is not None:
        with disk_errors(card_file), replacing(card_file) as building:
            building.write_text(card, encoding="utf-8")
        print(f"{card_file}: the model card")
    print(f"Next: {called('predict')} --run {local_path(options.out)} PICTURES")
    return 0


def _refuse(out: Path, format: str, card: Path | None) -> None:
    if not format:
        raise UsageError(f"--out {out}: end it with .fakegan or .onnx, or name a --format")
    for option, file in (("--out", out), ("--card", card)):
        if file is not None and file.exists():
            raise UsageError(f"{option} {file} is there already: name another file, or delete it first")
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: there is no folder {file.parent}")
    ending = next(ending for ending, name in _FORMATS.items() if name == format)
    if out.suffix.lower() != ending:
        raise UsageError(f"--out {out}: a file of --format {format} ends in {ending}, by which predict knows it")
    if card == out:
        raise UsageError(f"--card {card} is --out as well: name another file")


def _write_onnx(detector: Detector, out: Path, card: str, learnt_from: Sequence[str]) -> float:
    """Returns the largest difference of the scores from torch's, on built-in faces and on noise."""
    import numpy as np

    from fakegan.data.demo import SOURCES, draw_face
    from fakegan.onnx_writer import write_onnx

    size, rng = detector.geometry.size, np.random.default_rng(0)
    drawn = [draw_face(rng, SOURCES[i % len(SOURCES)], size) for i in range(_CHECKED // 2)]
    noise = rng.integers(0, 256, (_CHECKED - len(drawn), size, size, 3), dtype=np.uint8)
    return write_onnx(detector, out, np.concatenate([np.stack(drawn), noise]), card, learnt_from)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="A finished run as one file to hand on; predict and the page take it in place of the run.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("--run", type=path, required=True, metavar="RUN", help="the run's folder")
    add("--out", type=new_path, required=True, metavar="FILE", help="detector.fakegan (safetensors and JSON) or .onnx")
    add("--format", choices=("fakegan", "onnx"), help="by the ending of --out, unless you say it")
    add("--card", type=new_path, metavar="FILE.md", help="the model card as a file, too; it is in FILE in any case")
    add("--trust", action="append", default=[], metavar="NAME", help="a package whose code the run's file may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
