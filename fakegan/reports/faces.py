"""The report's chapters that go back to the face store: the hardest mistakes with their pictures, and the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fakegan.data.faces import divided, open_faces
from fakegan.data.sheets import png
from fakegan.data.splits import Splits
from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.reports.groups import Group, called_fake, fingerprint, scores
from fakegan.reports.render import Block, Caution, FaceRow, Figure, Items, Section, Table, Text, visible
from fakegan.runs.finished import Configuration, FinishedRun
from fakegan.runs.folder import FACES_FILE

SHOWN = 6  # faces of each kind: on a phone two rows of three
KINDS = (  # title, label, whether the verdict was fake
    ("Wrong: real faces called fake, the surest first", REAL, True),
    ("Wrong: fake faces called real, the surest first", FAKE, False),
    ("Right: real faces called real, the surest first", REAL, False),
    ("Right: fake faces called fake, the surest first", FAKE, True),
)
_SPLITS = {
    "autoencoder_train": "autoencoder: train",
    "autoencoder_val": "autoencoder: validation",
    "train": "train",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class OpenedFaces:
    """The store of some runs' faces as far as it is still there."""

    store: FaceStore | None
    splits: Splits | None  # None too where the runs were scored on faces of no split of theirs
    missing: str  # why there is no store; empty where there is one


def opened(run: FinishedRun) -> OpenedFaces:
    """The store that a run's test faces, or else its training faces, came from; it must not have changed since."""
    settings, began_with = run.settings, run.path / FACES_FILE
    expected = fingerprint(run)
    own = began_with.read_text(encoding="utf-8").strip() if began_with.is_file() else expected
    place = run.metrics.get("store", settings.data.root or settings.paths.data_dir)
    try:
        if "store" in run.metrics:
            store = FaceStore.open(run.metrics["store"])
            store.verify()
        else:
            store = open_faces(settings.data, settings.paths.data_dir, needs={}).store
    except FakeganError as error:
        return OpenedFaces(None, None, f"the store {place} is gone or damaged ({error})")
    if store.fingerprint != (expected or own):
        return OpenedFaces(None, None, f"the store {place} has changed since these runs")
    if store.fingerprint != own:
        return OpenedFaces(store, None, "")
    return OpenedFaces(store, divided(store, settings.data, {}), "")


# The hardest mistakes


def mistakes(group: Group, faces: OpenedFaces, name: str) -> list[Block]:
    """Where each configuration was surest and wrong, and surest and right, by its mean score over seeds."""
    blocks: list[Block] = []
    if faces.store is None:
        blocks.append(Caution(f"Pictures are left out: {faces.missing}."))
    rows = {} if faces.store is None else {file: row for row, file in enumerate(faces.store.files.tolist())}
    for configuration in group.configurations:
        galleries: list[Block] = []
        for title, label, fake in KINDS:
            chosen = _surest(group, configuration, label, fake)
            described = [_described(group, configuration, i) for i in chosen]
            pictured, named = [], []
            for file, text in zip(group.faces.files[chosen].tolist(), described, strict=True):
                if faces.store is not None and file in rows:
                    pictured.append(_pictured(faces.store, rows[file], text, f"{name}_{rows[file]}"))
                else:
                    named.append(_one_line(text))
            if pictured:
                galleries.append(FaceRow(title, pictured))
            else:
                galleries.append(Text(f"{title}: {'' if named else 'none'}"))
            if named:
                galleries.append(Items(named))
        blocks.append(Section(configuration.name, galleries))
    return blocks


def _surest(group: Group, configuration: Configuration, label: int, fake: bool) -> npt.NDArray[np.int64]:
    """Faces of a class that most seeds gave this verdict, the highest (or lowest) mean score first."""
    said = called_fake(configuration).mean(axis=0)
    agreed = said > 0.5 if fake else said < 0.5
    chosen = np.flatnonzero((group.faces.labels == label) & agreed)
    mean = scores(configuration).mean(axis=0)[chosen]
    order = np.argsort(-mean if fake else mean, kind="stable")
    return chosen[order[:SHOWN]]


def _described(group: Group, configuration: Configuration, face: int) -> str:
    file, source = str(group.faces.files[face]), str(group.faces.sources[face])
    score = float(scores(configuration)[:, face].mean())
    return f"{score:.3f} {source}\n{file.removeprefix(f'{source}/')}"


def _pictured(store: FaceStore, row: int, text: str, name: str) -> Figure:
    label = CLASS_NAMES[int(store.labels[row])]
    alt = f"{label} face: {_one_line(text)}"
    return Figure(f"face_{name}", png(np.ascontiguousarray(store.images[row])), alt, text)


def _one_line(text: str) -> str:
    return text.replace("\n", ", ")


# The data


def data(runs: Sequence[FinishedRun]) -> Section:
    """Each store that the runs used, with its sources, its splits and what there is to be wary of."""
    blocks: list[Block] = []
    together: dict[tuple[str, str, str], list[FinishedRun]] = {}
    for run in runs:
        place = str(run.metrics.get("store", run.settings.data.root))
        key = (fingerprint(run), place, str(run.settings.data.split))
        together.setdefault(key, []).append(run)
    for alike in together.values():
        blocks += _store_blocks(alike[0], opened(alike[0]))
    return Section("Data", blocks)


def _store_blocks(run: FinishedRun, faces: OpenedFaces) -> list[Block]:
    store = faces.store
    blocks: list[Block] = []
    if store is None:
        blocks.append(Caution(f"What the data were like is not known any more: {faces.missing}."))
    else:
        manifest = store.manifest
        unseen = [s for s in np.unique(store.sources).tolist() if run.classifies and s not in run.learnt_from]
        blocks.append(_sources_table(store, faces.splits, unseen))
        geometry = ", ".join(f"{key} {value}" for key, value in manifest["geometry"].items())
        blocks.append(Text(f"Fingerprint {store.fingerprint}; geometry: {geometry}."))
        if faces.splits is not None:
            blocks += [Text(f"{note[0].upper()}{note[1:]}.") for note in faces.splits.notes]
            blocks += [Text(f"{n} faces are in no split: {reason}.") for reason, n in faces.splits.left_out.items()]
        warnings = manifest.get("warnings")
        if warnings:
            blocks += [Caution(warning) for warning in warnings]
        elif warnings is None and run.settings.data.name != "demo":
            blocks.append(
                Text("The store keeps no warnings of its preparation: python -m fakegan.prepare prints them.")
            )
    if run.settings.data.name == "demo" and "store" not in run.metrics:
        blocks.append(Caution("These are the built-in faces, drawn by program: they prove nothing about real fakes."))
    named = run.settings.data.split.unseen
    if named and faces.splits is not None:
        blocks.append(Text(f"Sources that appear in the test only: {', '.join(named)}."))
    return blocks


def _sources_table(store: FaceStore, splits: Splits | None, unseen: Sequence[str]) -> Table:
    kept = [] if splits is None else list(_SPLITS.values())
    counts = {} if splits is None else splits.counts(store.sources)
    rows = []
    for source in np.unique(store.sources):
        own = store.sources == source
        label = CLASS_NAMES[int(store.labels[own][0])]
        rejected = store.manifest.get("sources", {}).get(str(source), {}).get("rejected", 0)
        words = f"{label}, unseen in training" if source in unseen else label
        rows.append([str(source), words, str(int(own.sum())), str(rejected), *map(str, counts.get(str(source), ()))])
    columns = ["source", "class", "faces", "rejected", *kept]
    return Table(f"The store {visible(store.path.name)}, by source and split", columns, rows, words=2)
