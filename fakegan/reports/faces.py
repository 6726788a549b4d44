"""The report's chapters that go back to the face store: the hardest mistakes with their pictures, and the data."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fakegan.data.faces import divided, open_faces
from fakegan.data.sheets import png, shrunk
from fakegan.data.shortcuts import Pair, headlines, known_of, table
from fakegan.data.splits import Splits
from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.reports.groups import Group, called_fake, fingerprint, scores
from fakegan.reports.render import Block, Figure, Gallery, Items, Section, Table, Text, visible
from fakegan.runs.began import fingerprint_at_start
from fakegan.runs.finished import Configuration, FinishedRun, differences_of, flat
from fakegan.system.shell import called, local_path

PIXELS = 128  # a side of a face, at most: the page shows them no larger
SHOWN = 6  # faces of each kind: on a phone two rows of three
KINDS = (  # title, label, whether it was called fake
    ("Wrong: real faces called fake, the surest first", REAL, True),
    ("Wrong: fake faces called real, the surest first", FAKE, False),
    ("Right: real faces called real, the surest first", REAL, False),
    ("Right: fake faces called fake, the surest first", FAKE, True),
)
SPLITS = ("autoencoder: train", "autoencoder: validation", "train", "validation", "test")


@dataclass(frozen=True)
class OpenedFaces:
    """The store of some runs' faces, if it is still there."""

    store: FaceStore | None
    splits: Splits | None = None  # None too where the runs were scored on another store
    missing: str = ""  # why there is no store


def opened(run: FinishedRun) -> OpenedFaces:
    """The store of a run's test faces, or else of its training faces; it must not have changed since."""
    settings, expected = run.settings, fingerprint(run)
    own = fingerprint_at_start(run.path) or expected
    place = run.metrics.get("store", settings.data.root or settings.paths.data_dir)
    try:
        if "store" in run.metrics:
            store = FaceStore.open(run.metrics["store"])
            store.verify()
        else:
            store = open_faces(settings.data, settings.paths.data_dir, needs={}).store
    except FakeganError as error:
        return OpenedFaces(None, missing=f"the store {place} is gone or damaged ({error})")
    if store.fingerprint != (expected or own):
        return OpenedFaces(None, missing=f"the store {place} has changed since these runs")
    return OpenedFaces(store, divided(store, settings.data, {}) if store.fingerprint == own else None)


def mistakes(group: Group, faces: OpenedFaces, name: str) -> list[Block]:
    """Where each configuration was surest and wrong, and surest and right, by its mean score over seeds."""
    store, blocks = faces.store, list[Block]()
    if store is None:
        blocks.append(Text(f"Pictures are left out: {faces.missing}.", warning=True))
    rows = {} if store is None else {file: row for row, file in enumerate(store.files.tolist())}
    for configuration in group.configurations:
        shown: list[Block] = []
        for title, label, fake in KINDS:
            pictured, named = [], []
            for file, text in _surest(group, configuration, label, fake):
                line = text.replace("\n", ", ")
                if store is None or file not in rows:
                    named.append(line)
                    continue
                picture = png(shrunk(store.images[rows[file]], PIXELS))
                pictured.append(
                    Figure(f"face_{name}_{rows[file]}", picture, f"{CLASS_NAMES[label]} face: {line}", text)
                )
            shown.append(Gallery(pictured, title) if pictured else Text(f"{title}: {'' if named else 'none'}"))
            shown += [Items(named)] if named else []
        blocks.append(Section(configuration.name, shown, folded=len(group.configurations) > 1))
    return blocks


def _surest(group: Group, configuration: Configuration, label: int, fake: bool) -> list[tuple[str, str]]:
    """Faces of a class that most seeds called so, the highest (or lowest) mean score first: file, caption."""
    faces, said, mean = group.faces, called_fake(configuration).mean(axis=0), scores(configuration).mean(axis=0)
    chosen = np.flatnonzero((faces.labels == label) & (said > 0.5 if fake else said < 0.5))
    order = np.argsort(-mean[chosen] if fake else mean[chosen], kind="stable")
    found = []
    for face in chosen[order[:SHOWN]]:
        file, source = str(faces.files[face]), str(faces.sources[face])
        found.append((file, f"{mean[face]:.3f} {source}\n{file.removeprefix(f'{source}/')}"))
    return found


def data(runs: Sequence[FinishedRun]) -> tuple[list[Block], list[str], list[str]]:
    """Each store that the runs used: its sources, splits and warnings; warnings on shortcuts; what was not audited."""
    first: dict[tuple[str, str, str], FinishedRun] = {}
    for run in runs:
        place = str(run.metrics.get("store", run.settings.data.root))
        first.setdefault((fingerprint(run), place, str(run.settings.data.split)), run)
    found = [(run, opened(run)) for run in first.values()]
    audits = [_audit(run, faces) for run, faces in found]
    blocks: list[Block] = []
    stores: dict[tuple[str, str], tuple[FinishedRun, list[Block]]] = {}  # who divided the store first, and all said
    for key, (run, faces), audit in zip(first, found, audits, strict=True):
        own = _of_store(run, faces, audit or ())
        before, said = stores.setdefault(key[:2], (run, []))
        new = [block for block in own if block not in said]
        why = "; ".join(differences_of(_division(run), _division(before)))
        blocks += [Section(f"The same store, divided otherwise: {why}", new, folded=True)] if said else own
        said += new
    missing = {str(f.store.path) for (_, f), audit in zip(found, audits, strict=True) if f.store and audit is None}
    notes = [
        "Not audited: whether files or cheap traces alone tell these real faces from these fakes is not known; "
        f"{called('audit')} --data {shlex.quote(local_path(root))} tells."
        for root in sorted(missing)
    ]
    pairs: dict[str, dict[str, Pair]] = {}  # of each store: runs that hold different sources out share the others
    for (run, _), audit in zip(found, audits, strict=True):
        pairs.setdefault(fingerprint(run), {}).update({str(pair): pair for pair in audit or ()})
    return blocks, [words for of_store in pairs.values() for words in headlines(of_store.values())], notes


def _division(run: FinishedRun) -> dict[str, Any]:
    """The options that divide the run's store, by key."""
    return flat(run.settings.configuration()["data"]["split"], "data.split")


def _audit(run: FinishedRun, faces: OpenedFaces) -> list[Pair] | None:
    """What an audit has found of the pairs that the run's classifier learnt to tell apart; None without an audit."""
    if faces.store is None or faces.splits is None or not run.settings.pipeline.learns_generated:
        return []
    return known_of(faces.store, faces.splits) if run.settings.data.root is not None else []


def _of_store(run: FinishedRun, faces: OpenedFaces, audit: Sequence[Pair]) -> list[Block]:
    store, splits, settings = faces.store, faces.splits, run.settings.data
    blocks: list[Block] = []
    if store is None:
        blocks.append(Text(f"What the data were like is not known any more: {faces.missing}.", warning=True))
    else:
        geometry = ", ".join(f"{key} {value}" for key, value in store.manifest["geometry"].items())
        blocks += [_sources_table(run, store, splits), Text(f"Fingerprint {store.fingerprint}; geometry: {geometry}.")]
        if splits is not None:
            blocks += [Text(f"{note[0].upper()}{note[1:]}.") for note in splits.notes]
            blocks += [Text(f"{n} faces are in no split: {reason}.") for reason, n in splits.left_out.items()]
        if audit:
            blocks.append(Table("Real from fake without looking at faces: AUROC [95% interval]", table(audit), words=2))
        warnings = store.manifest.get("warnings")
        # Older stores accuse all sources of what one is like: an audit knows better.
        said = [words for words in warnings or () if not (audit and words.startswith("real and fake pictures differ"))]
        blocks += [Text(words, warning=True) for words in said]
        if warnings is None and settings.name != "demo":
            words = "The store keeps no warnings of its preparation: python -m fakegan.prepare prints them."
            blocks.append(Text(words))
    if settings.name == "demo" and "store" not in run.metrics:
        words = "These are the built-in faces, drawn by program: they prove nothing about real fakes."
        blocks.append(Text(words, warning=True))
    if settings.split.unseen and splits is not None:
        blocks.append(Text(f"Sources that appear in the test only: {', '.join(settings.split.unseen)}."))
    if settings.split.learn_from and splits is not None:
        blocks.append(Text(f"Of the fakes, only {', '.join(settings.split.learn_from)} appear before the test."))
    return blocks


def _sources_table(run: FinishedRun, store: FaceStore, splits: Splits | None) -> Table:
    counts = {} if splits is None else splits.counts(store.sources)
    rows = []
    for source in np.unique(store.sources).tolist():
        own = store.sources == source
        unseen = ", unseen by the classifier" if run.classifies and source not in run.learnt_from else ""
        row = {"source": source, "class": f"{CLASS_NAMES[int(store.labels[own][0])]}{unseen}", "faces": str(own.sum())}
        row["rejected"] = str(store.manifest.get("sources", {}).get(source, {}).get("rejected", 0))
        if splits is not None:
            row |= dict(zip(SPLITS, map(str, counts[source]), strict=True))
        rows.append(row)
    return Table(f"The store {visible(store.path.name)}, by source and split", rows, words=2)
