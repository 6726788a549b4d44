"""python -m fakegan.prepare: pictures of real and fake faces into a face store, once, for all runs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fakegan.commands import Parser, ProgressLine, at_least, new_path, path, run
from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.images import Geometry
from fakegan.data.sources import ValueRange
from fakegan.data.store import FAKE, LABEL_CONVENTION, REAL
from fakegan.data.summary import Summary
from fakegan.errors import UsageError
from fakegan.processes import cores
from fakegan.words import command, expanded, word

_COMMAND = "python -m fakegan.prepare"
_SPLIT_FOLDERS = {"train": "train", "valid": "val", "val": "val", "test": "test"}

_EXAMPLES = f"""examples:
  {_COMMAND} --real ffhq=photos/ffhq --fake stylegan=fakes.zip --out data/faces
  {_COMMAND} --root DIR --keep-splits --out data/faces      DIR/{{train,valid,test}}/{{real,fake}}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares a store; returns the exit code: 0, 1 failure, 2 usage, 130 stopped."""
    stopped = "nothing was written, and a store that was there before is untouched."
    return run(_COMMAND, _prepare, arguments, stopped)


def _prepare(words: list[str]) -> int:
    options = _parser().parse_args(words)
    recipe = Recipe(
        sources=_sources(options),
        geometry=Geometry(crop=not options.no_crop, max_megapixels=options.max_megapixels),
        groups=options.groups,
        limit=options.limit,
        value_range=options.npy_range,
    )
    started = time.monotonic()
    with ProgressLine() as progress:
        summary = build_store(
            recipe,
            options.out,
            workers=options.workers,
            overwrite=options.overwrite,
            dry_run=options.dry_run,
            progress=progress,
        )
    _report(summary, options, time.monotonic() - started)
    return 0


def _report(summary: Summary, options: argparse.Namespace, seconds: float) -> None:
    if summary.swept:
        print("Removed what a stopped run had left.")
    print("\n".join(summary.lines()))
    if options.dry_run:
        print(f"{summary.count:,} faces in {seconds:.1f} s; a dry run: nothing was written.")
        return
    print(f"{summary.count:,} faces in {seconds:.1f} s: {options.out}")
    if any(source.rejected for source in summary.sources):
        print(f"What was rejected, and why: {options.out / 'rejected.csv'}")
    faces = ("data=faces", word("data.root", options.out))
    if summary.classes == {REAL, FAKE}:
        print(f"Next: {command('train.py', 'model=autogan4', 'pipeline=recon_classify', *faces)}")
    else:
        missing = next(name for name, label in LABEL_CONVENTION.items() if label not in summary.classes)
        if missing == "fake":
            print(f"Next: {command('train.py', 'pipeline=autoencoder', *faces)}")
        print(f"Only one class: to train a classifier, prepare again with --{missing} NAME=PATH as well.")


def _sources(options: argparse.Namespace) -> list[Source]:
    """All that the command names, real ones first; names are unique across classes."""
    named = [_named(text, REAL) for text in options.real] + [_named(text, FAKE) for text in options.fake]
    if options.root:
        named += _rooted(options.root, options.keep_splits)
    elif options.keep_splits:
        raise UsageError("--keep-splits needs --root DIR with DIR/train, DIR/valid, DIR/test")
    if not named:
        raise UsageError("nothing to prepare: give --real NAME=PATH, --fake NAME=PATH or --root DIR")
    _refuse_twice(named)
    return sorted(named, key=lambda source: source.label)


def _refuse_twice(sources: Sequence[Source]) -> None:
    """Only the folders of --root, which have a prefix, may make up one source together."""
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.name, source)
        if other is not source and not (other.prefix and source.prefix):
            raise UsageError(f"two sources are called {source.name}: give each a NAME of its own")


def _named(text: str, label: int) -> Source:
    name, equals, place = text.partition("=")
    option = "--real" if label == REAL else "--fake"
    if not equals or not name or not place:
        raise UsageError(f"{option} {text}: write NAME=PATH, such as {option} stylegan={text or 'DIR'}")
    if any(mark in name for mark in "/\\,\n") or name != name.strip():
        raise UsageError(f"{option} {text}: a source's name has no slash, comma or space around it")
    return Source(name, label, Path(expanded(place)))


def _rooted(root: Path, keep_splits: bool) -> list[Source]:
    """DIR/{real,fake}, or DIR/{train,valid,test}/{real,fake}."""
    if not root.is_dir():
        raise UsageError(f"--root {root} is not a folder")
    parts = {folder: split for folder, split in _SPLIT_FOLDERS.items() if (root / folder).is_dir()}
    if parts and any((root / name).is_dir() for name in LABEL_CONVENTION):
        raise UsageError(f"--root {root} holds real or fake beside {', '.join(parts)}: move one of them away")
    if keep_splits and not parts:
        raise UsageError(f"--keep-splits: {root} has no folders train, valid, test")
    sources = [
        Source(
            name=name,
            label=label,
            path=root / part / name,
            split=split if keep_splits else "",
            prefix=f"{part}/{name}" if part else name,
        )
        for name, label in LABEL_CONVENTION.items()
        for part, split in (parts or {"": ""}).items()
        if (root / part / name).is_dir()
    ]
    if not sources:
        raise UsageError(f"--root {root}: expected its folders real and fake, or train, valid, test with these")
    return sources


def _value_range(text: str) -> ValueRange:
    try:
        low, high = (float(end) for end in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write LOW,HIGH, such as -1,1") from None
    if not low < high < float("inf") or low == -float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: LOW must be below HIGH")
    return low, high


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="Pictures of faces into a face store: 64x64, one geometry for real and fake.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--real", action="append", default=[], metavar="NAME=PATH", help="real faces: folder, .zip or .npy")
    add("--fake", action="append", default=[], metavar="NAME=PATH", help="the same for a generator's faces")
    add("--root", type=path, metavar="DIR", help="DIR/{real,fake} or DIR/{train,valid,test}/{real,fake}")
    add("--keep-splits", action="store_true", help="with --root: train, valid and test stay what they are")
    add(
        "--groups",
        type=path,
        metavar="CSV",
        help="columns file,group (file: as below its source, or source/file): a group stays together",
    )
    add("--out", type=new_path, required=True, metavar="DIR", help="the store")
    add("--workers", type=at_least(1), default=cores(), metavar="N", help="processes (default: cores)")
    add("--limit", type=at_least(1), metavar="N", help="the first N of each source, in the order of names")
    add("--overwrite", action="store_true", help="replace the store at --out")
    add("--dry-run", action="store_true", help="read and summarise, write nothing")
    add("--no-crop", action="store_true", help="squash the whole picture instead of its centre square")
    add("--max-megapixels", type=at_least(1), default=64, metavar="N", help="refuse larger pictures (64)")
    add(
        "--npy-range",
        type=_value_range,
        metavar="LOW,HIGH",
        help="what float arrays span: --npy-range=-1,1 or 0,1 or 0,255",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
