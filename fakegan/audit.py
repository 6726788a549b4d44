"""python -m fakegan.audit: can the real and fake faces of a store be told apart without looking at faces?"""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before libraries that take long to load

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fakegan.cli.calling import compose
from fakegan.cli.commands import Parser, path, run
from fakegan.config.typed import from_mapping
from fakegan.data.file_facts import Files, described
from fakegan.data.shortcuts import ALL, FEWEST, FILES, PIXELS, TOLD, Pair, Roles, audit_store, lines, worded
from fakegan.data.splits import SplitConfig, split_faces
from fakegan.data.store import EQUALISED, FaceStore
from fakegan.errors import UsageError
from fakegan.labels import CLASS_NAMES, LABEL_CONVENTION
from fakegan.system.columns import in_columns
from fakegan.system.places import shown
from fakegan.system.shell import as_override

_COMMAND = shown("audit")

_EXAMPLES = f"""examples:
  {_COMMAND} --data data/faces
  {_COMMAND} --data data/four 'data.split.unseen=[stylegan3]' 'data.split.autoencoder_sources=[celeba]'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit a store; returns the exit code: 0, 1 failure or with --strict a warning, 2 usage, 130 stopped."""
    return run("audit", _audit, arguments, stopped="nothing was written.")


def _audit(words: list[str]) -> int:
    options = _parser().parse_args(words)
    store = FaceStore.open(options.data)
    for name, label in LABEL_CONVENTION.items():
        if label not in store.labels:
            raise UsageError(f"{options.data} holds no {name} faces to audit: prepare it again with --{name} NAME=PATH")
    config = _split(options.data, options.split)
    columns = (store.labels, store.sources, store.groups, store.kept_split)
    roles = Roles.of(store, split_faces(*columns, config, needs={}))
    if not (pairs := [*roles.learnt, *roles.tested]):
        raise UsageError("with these sources no real face is set against a fake one: name fewer in data.split")
    found = audit_store(store, pairs)
    learnt, tested = found[: len(roles.learnt)], found[len(roles.learnt) :]
    print("\n".join([*_files(store), "", *_results(learnt, tested, roles)]))
    told = [warning for pair in learnt for kind in (FILES, PIXELS) if (warning := pair.warning(kind))]
    print("\n".join([*(f"warning: {warning}" for warning in told), *_answer(learnt, tested)]))
    return int(options.strict and bool(told))


def _split(data: Path, overrides: Sequence[str]) -> SplitConfig:
    """The split of a run with these overrides."""
    if wrong := [word for word in overrides if not word.startswith("data.split.")]:
        raise UsageError(f"{wrong[0]}: an audit takes train.py's data.split.KEY=VALUE and no other overrides")
    config = compose("data=faces", as_override("data.root", data), *overrides)["data"]["split"]
    return from_mapping(SplitConfig, {key: list(v) if isinstance(v, Sequence) else v for key, v in config.items()})


def _files(store: FaceStore) -> list[str]:
    """A table of each source's files; a table more of what equalising made of them."""
    found = []
    for title, files in (("as they came", store.file_facts()), ("equalised", store.file_facts(EQUALISED))):
        if files is not None:
            found += [f"files, {title} (a/b/c: a tenth of them is below a, half below b, nine tenths below c)"]
            found += in_columns(_rows(store, files))
    if (files := store.file_facts()) is not None and np.isnan(files["exif"]).any():
        found.append("of some files bytes and EXIF are not known: they are no files, or an older FakeGAN prepared them")
    return found


def _rows(store: FaceStore, files: Files) -> list[list[str]]:
    rows: list[list[str]] = []
    for source in np.unique(store.sources):
        own = store.sources == source
        facts = described({name: column[own] for name, column in files.items()})
        rows.append([str(source), CLASS_NAMES[int(store.labels[own][0])], f"{own.sum():,}", *facts.values()])
    return [["source", "class", "faces", *facts], *rows]


def _results(learnt: Sequence[Pair], tested: Sequence[Pair], roles: Roles) -> list[str]:
    """Each group of features apart, then the AUROCs of each pair by role."""
    found: list[str] = []
    for pair in [*learnt, *tested]:
        for kind, measures in pair.found.items():
            apart = [[f"  {name}", worded(m)] for name, m in measures.items() if name != ALL]
            found += [f"{pair}, by {kind}:", *in_columns(apart), ""]
    for pairs, title in ((learnt, "that a classifier learns to tell apart"), (tested, "of which one is only tested")):
        if pairs:
            found += [f"sources {title}: AUROC [95% interval] without looking at faces", *lines(pairs), ""]
    if roles.autoencoder:
        found += [f"only the autoencoder's, and set against no other: {', '.join(roles.autoencoder)}", ""]
    return found


def _answer(learnt: Sequence[Pair], tested: Sequence[Pair]) -> list[str]:
    """What is to be known beside the warnings."""
    found = []
    told, apart = (
        [pair for pair in pairs if pair.told_by(FILES) or pair.told_by(PIXELS)] for pairs in (learnt, tested)
    )
    if not learnt:
        found.append("No classifier is judged: with this split it would learn from one class only.")
    if not told and any(pair.found for pair in learnt):
        found.append(
            "Neither files nor cheap pixels tell real from fake where a classifier learns: "
            f"no interval lies above {TOLD}."
        )
    if apart:
        found.append(f"Only tested, and told apart without looking at faces: {', '.join(map(str, apart))}.")
    if few := [str(pair) for pair in (*learnt, *tested) if not pair.found]:
        found.append(f"Not known for {', '.join(few)}: {FEWEST} faces, or groups of them, of each are needed.")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="Can real and fake faces be told apart without looking at faces: by their files, by cheap pixels?",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("--data", type=path, required=True, metavar="DIR", help="the store, as prepare wrote it")
    add("--strict", action="store_true", help="exit code 1 where there is a warning")
    add("split", nargs="*", metavar="data.split.KEY=VALUE", help="as train.py takes them: unseen, learn_from, ...")
    return parser


if __name__ == "__main__":
    sys.exit(main())
