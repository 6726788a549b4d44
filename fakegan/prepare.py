"""python -m fakegan.prepare: pictures of real and fake faces into a face store, once, for all runs."""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before libraries that take long to load

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fakegan.checks import SIZES
from fakegan.cli.commands import Parser, add_max_megapixels, at_least, new_path, path, run
from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.damage import unchecked
from fakegan.data.frames import GROUP_BY
from fakegan.data.images import Equaliser, Geometry
from fakegan.data.layout import rooted
from fakegan.data.shortcuts import audit, audit_store, headlines, lines
from fakegan.data.sources import ValueRange
from fakegan.data.store import FaceStore
from fakegan.data.summary import Summary
from fakegan.errors import UsageError
from fakegan.labels import FAKE, LABEL_CONVENTION, REAL
from fakegan.system.places import shown
from fakegan.system.processes import cores
from fakegan.system.shell import as_override, called, command, expanded, local_path

_COMMAND = shown("prepare")

_EXAMPLES = f"""examples:
  {_COMMAND} --real ffhq=photos/ffhq --fake stylegan=fakes.zip --out data/faces
  {_COMMAND} --root DIR --keep-splits --out data/faces      DIR/{{train,val,test}}/{{real,fake}}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares a store; returns the exit code: 0, 1 failure, 2 usage, 130 stopped."""
    stopped = "nothing was written, and a store that was there before is untouched."
    return run("prepare", _prepare, arguments, stopped)


def _prepare(given: list[str]) -> int:
    options = _parser().parse_args(given)
    if options.groups and options.group_by:
        raise UsageError("--groups says itself what belongs together: leave out --group-by")
    recipe = Recipe(
        _sources(options),
        _geometry(options),
        groups=options.groups,
        group_by=options.group_by,
        limit=options.limit,
        value_range=options.npy_range,
    )
    started = time.monotonic()
    summary = build_store(
        recipe, options.out, workers=options.workers, overwrite=options.overwrite, dry_run=options.dry_run
    )
    return _report(summary, options, time.monotonic() - started)


def _geometry(options: argparse.Namespace) -> Geometry:
    equalise = None if options.equalise is None else Equaliser(*(options.equalise or [options.size]))
    if equalise and (wrong := equalise.wrong(options.size)):
        raise UsageError(f"--equalise: {wrong}")
    return Geometry(options.size, not options.no_crop, options.max_megapixels, not options.ignore_profiles, equalise)


def _report(summary: Summary, options: argparse.Namespace, seconds: float) -> int:
    """Prints what was found; returns the exit code."""
    if summary.swept:
        print("Removed what a stopped run had left.")
    print("\n".join(summary.lines()))
    if sentence := unchecked():
        print(sentence)
    if options.dry_run:
        _audit(summary, options)
        print(f"{summary.count:,} faces in {seconds:.1f} s; a dry run: nothing was written.")
        return 0
    try:
        _audit(summary, options)
    except (KeyboardInterrupt, SystemExit):  # the store has taken its place already
        print(f"\nStopped: {options.out} is finished, but not audited: {_audit_command(options)}", file=sys.stderr)
        return 128 + (signals.requested_stop() or signal.SIGINT)
    print(f"{summary.count:,} faces in {seconds:.1f} s: {options.out}")
    if any(source.rejected for source in summary.sources):
        print(f"What was rejected, and why: {options.out / 'rejected.csv'}")
    faces = ("data=faces", as_override("data.root", options.out))
    if summary.classes == {REAL, FAKE}:
        print(f"Next: {command('train.py', 'model=autogan4', 'pipeline=recon_classify', *faces)}")
    else:
        missing = next(name for name, label in LABEL_CONVENTION.items() if label not in summary.classes)
        if missing == "fake":
            print(f"Next: {command('train.py', 'pipeline=autoencoder', *faces)}")
        print(f"Only one class: to train a classifier, prepare again with --{missing} NAME=PATH as well.")
    return 0


def _audit(summary: Summary, options: argparse.Namespace) -> None:
    """Whether files, or cheap pixels, tell real from fake; a dry run knows the files alone."""
    pairs = summary.pictures.every_pair()
    found = audit(summary.pictures, pairs) if options.dry_run else audit_store(FaceStore.open(options.out), pairs)
    if not found:
        return
    print("Real from fake without looking at faces: AUROC [95% interval], 0.5 is guessing")
    print("\n".join(lines(found)))
    for warning in headlines(found):
        print(f"warning: {warning}")
    if not options.dry_run:
        print(f"By what, and for unseen sources: {_audit_command(options)}")


def _audit_command(options: argparse.Namespace) -> str:
    return f"{called('audit')} --data {shlex.quote(local_path(options.out))}"


def _sources(options: argparse.Namespace) -> list[Source]:
    """All that the command names, real ones first; names are unique across classes."""
    named = [_named(text, REAL) for text in options.real] + [_named(text, FAKE) for text in options.fake]
    if options.root:
        layout = rooted(options.root, options.keep_splits, options.skip_unknown)
        named += layout.sources
        if layout.not_taken:
            print(f"Left out, of no class: {', '.join(layout.not_taken)}", flush=True)
        if options.keep_splits:
            print("".join(f"{note}\n" for note in layout.notes()), end="", flush=True)
    elif options.keep_splits or options.skip_unknown:
        option = "--keep-splits" if options.keep_splits else "--skip-unknown"
        raise UsageError(f"{option} needs --root DIR with DIR/real, DIR/fake or DIR/train, DIR/val, DIR/test")
    if not named:
        raise UsageError("nothing to prepare: give --real NAME=PATH, --fake NAME=PATH or --root DIR")
    seen: dict[str, Source] = {}
    for source in named:  # only the folders of --root, which have a prefix, may make up one source together
        other = seen.setdefault(source.name, source)
        if other is not source and not (other.prefix and source.prefix):
            raise UsageError(f"two sources are called {source.name}: give each a NAME of its own")
    return sorted(named, key=lambda source: source.label)


def _named(text: str, label: int) -> Source:
    name, equals, place = text.partition("=")
    option = "--real" if label == REAL else "--fake"
    if not equals or not name or not place:
        example = "ffhq" if label == REAL else "stylegan"
        raise UsageError(f"{option} {text}: write NAME=PATH, such as {option} {example}={text or 'DIR'}")
    if any(mark in name for mark in "/\\,\n") or name != name.strip():
        raise UsageError(f"{option} {text}: a source's name has no slash, comma or space around it")
    return Source(name, label, Path(expanded(place)))


def _value_range(text: str) -> ValueRange:
    try:
        low, high = (float(end) for end in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write LOW,HIGH, such as -1,1") from None
    if not low < high < float("inf") or low == -float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: LOW must be below HIGH")
    return low, high


def _side_and_quality(text: str) -> list[int]:
    numbers = text.split(",")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text}: write SIDE or SIDE,QUALITY, such as 64,50")
    return [int(number) for number in numbers]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="Pictures of faces into a face store: one geometry for real and fake.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("--real", action="append", default=[], metavar="NAME=PATH", help="real faces: folder, .zip or .npy")
    add("--fake", action="append", default=[], metavar="NAME=PATH", help="the same for a generator's faces")
    add(
        "--root",
        type=path,
        metavar="DIR",
        help="a folder or .zip with {real,fake} or {train,val,test}/{real,fake}; fake_NAME is a source of its own",
    )
    add("--keep-splits", action="store_true", help="with --root: train, val and test stay what they are")
    add("--skip-unknown", action="store_true", help="with --root: leave out pictures in folders of other names")
    add(
        "--groups",
        type=path,
        metavar="CSV",
        help="columns file,group (file: as below its source, or source/file): a group stays together",
    )
    add(
        "--group-by",
        choices=GROUP_BY,
        help="a group is the pictures of a folder, or those named alike before a last number (video3_0001.png)",
    )
    add("--out", type=new_path, required=True, metavar="DIR", help="the store")
    add("--size", type=int, choices=SIZES, default=SIZES[0], help=f"pixels a side of every face ({SIZES[0]})")
    add("--workers", type=at_least(1), default=cores(), metavar="N", help="processes (default: cores)")
    add("--limit", type=at_least(1), metavar="N", help="the first N of each source, in the order of names")
    add("--overwrite", action="store_true", help="replace the store at --out")
    add("--dry-run", action="store_true", help="read and summarise, write nothing")
    add("--no-crop", action="store_true", help="squash the whole picture instead of its centre square")
    add(
        "--equalise",
        nargs="?",
        type=_side_and_quality,
        const=[],
        metavar="SIDE[,QUALITY]",
        help=f"make every picture a JPEG of one side and quality before its face (--size, {Equaliser(0).quality})",
    )
    add("--ignore-profiles", action="store_true", help="take all colours as sRGB, as older stores did")
    add_max_megapixels(parser)
    add(
        "--npy-range",
        type=_value_range,
        metavar="LOW,HIGH",
        help="what float arrays span: --npy-range=-1,1 or 0,1 or 0,255",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
