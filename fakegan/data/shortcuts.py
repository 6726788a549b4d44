"""Can real and fake be told apart without looking at faces? By the facts of files alone, and by cheap pixels alone.

A classifier learns whatever tells the classes apart. For each pair of a real and a fake source, a probe (a logistic
regression) learns the classes from a few numbers of each picture, cross-validated by group.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fakegan.data.arrays import RowArray, Rows, at_once
from fakegan.data.file_facts import Files, sizes
from fakegan.data.splits import Splits
from fakegan.data.store import AUDIT, EQUALISED, FaceStore, StringArray
from fakegan.errors import FakeganError
from fakegan.evaluation import spectrum
from fakegan.evaluation.intervals import Bounded, Floats, Labels
from fakegan.evaluation.probe import areas, cross_validated
from fakegan.labels import FAKE, REAL
from fakegan.system.columns import in_columns
from fakegan.system.files import replacing
from fakegan.system.log import quiet

TOLD = 0.6  # a 95% interval of the AUROC above it: a classifier will learn that
FEWEST = 10  # groups of each source in a pair; of fewer no probe learns
MOST = 1000  # faces of each source that are looked at, evenly from first to last
ALL = "all"  # features of a kind
FILES, PIXELS, BEFORE = "files", "cheap pixels", "files as they came"  # the last: before they were equalised
RECIPE = 1  # of an audit: raise it when the same store gives other numbers
_SO = {  # what follows
    FILES: "A classifier will learn that. prepare --equalise makes all files alike.",
    PIXELS: "A classifier will learn that, and one with no higher AUROC has learnt no more.",
}
_COMMON = (8, 0.02)  # values of a text that count as features each: at most so many, each with that share
_WIDER = 1.4  # times, by simulation: see tests/test_audit.py
_FARTHEST = 5.0  # standard deviations that an outlier counts as
_BATCH = 256  # faces of the smallest size
_MAX_BYTES = 16 * 2**20  # of a stored audit, some 2 kB a pair

Column = npt.NDArray[Any]  # (N,): float64 with NaN for unknown, or texts with "" for unknown
Features = dict[str, dict[str, list[Column]]]  # kind -> group of features -> columns


@dataclass(frozen=True)
class Pictures:
    """What is audited; row i of each."""

    labels: Labels
    sources: StringArray
    groups: StringArray
    files: Files  # as they came
    equalised: Files | None = None  # as they are, if not as they came
    images: RowArray | None = None  # (N, size, size, 3); None: the files alone are audited
    size: int = 0

    @classmethod
    def of(cls, store: FaceStore) -> Pictures:
        """A whole store; raises a FakeganError for damaged facts."""
        files, size = store.file_facts(), store.geometry.size
        assert files is not None
        return cls(store.labels, store.sources, store.groups, files, store.file_facts(EQUALISED), store.images, size)

    def every_pair(self) -> list[tuple[str, str]]:
        """Each real with each fake source."""
        real, fake = (np.unique(self.sources[self.labels == label]).tolist() for label in (REAL, FAKE))
        return [(r, f) for r in real for f in fake]


@dataclass(frozen=True)
class Pair:
    """A real and a fake source, and how well they are told apart."""

    real: str
    fake: str
    found: Mapping[str, Mapping[str, Bounded]]  # kind -> ALL, then each group of features -> AUROC; {}: too few faces

    def told_by(self, kind: str) -> list[str]:
        """The groups of features of a kind, ALL too, that tell them apart, the best first."""
        measures = self.found.get(kind, {})
        return sorted((g for g, m in measures.items() if m["low"] > TOLD), key=lambda g: -measures[g]["value"])

    def best(self, kind: str) -> Bounded:
        """The AUROC that a kind reaches."""
        told = self.told_by(kind)
        return self.found[kind][told[0] if told else ALL]

    def warning(self, kind: str) -> str:
        """How a kind tells them apart, in a sentence; empty where it does not."""
        if not (told := self.told_by(kind)):
            return ""
        by = [group for group in told if group != ALL][:3]
        because = " and ".join(filter(None, (", ".join(by[:-1]), by[-1]))) if by else "several together"
        return f"{self}: {kind} alone tell real from fake: AUROC {worded(self.best(kind))} by {because}. {_SO[kind]}"

    def __str__(self) -> str:
        return f"{self.real} against {self.fake}"


@dataclass(frozen=True)
class Roles:
    """The pairs that a run sets against each other."""

    learnt: list[tuple[str, str]]  # its classifier learns both apart
    tested: list[tuple[str, str]]  # one of both appears in the test only
    autoencoder: list[str]  # sources that train the autoencoder alone

    @classmethod
    def of(cls, store: FaceStore, splits: Splits) -> Roles:
        """By what is in which split."""
        learnt, tested, left = (
            set(store.sources[np.concatenate(rows)].tolist())
            for rows in ([splits.train, splits.val], [splits.test], [splits.autoencoder_train, splits.autoencoder_val])
        )
        label = dict(zip(store.sources.tolist(), store.labels.tolist(), strict=True))
        both = sorted(learnt | tested)
        pairs = [(r, f) for r in both if label[r] == REAL for f in both if label[f] == FAKE]
        apart = [pair for pair in pairs if learnt.issuperset(pair)]
        return cls(apart, [pair for pair in pairs if pair not in apart], sorted(left - learnt - tested))


def headlines(pairs: Collection[Pair]) -> list[str]:
    """The warning on the pair that is told apart best, by files and by pixels, and how many more there are."""
    found = []
    for kind in (FILES, PIXELS):
        told = [pair for pair in pairs if pair.told_by(kind)]
        if told:
            worst = max(told, key=lambda pair: pair.best(kind)["value"])
            more = f" And {len(told) - 1} more pair{'s' * (len(told) > 2)} by {kind}." if len(told) > 1 else ""
            found.append(worst.warning(kind) + more)
    return found


def table(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    """A row for each pair: AUROC with its interval, by kind."""
    kinds = dict.fromkeys(kind for pair in pairs for kind in pair.found)
    return [
        {"real": pair.real, "fake": pair.fake}
        | {kind: worded(pair.best(kind)) if kind in pair.found else "too few faces" for kind in kinds or (FILES,)}
        for pair in pairs
    ]


def lines(pairs: Sequence[Pair]) -> list[str]:
    """The same for a terminal."""
    rows = table(pairs)
    return in_columns([list(rows[0]), *(list(row.values()) for row in rows)])


def worded(measure: Bounded) -> str:
    """0.970 [0.96, 0.98]."""
    return f"{measure['value']:.3f} [{measure['low']:.2f}, {measure['high']:.2f}]"


def audit_store(store: FaceStore, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """The audit of these pairs; what the store's folder does not hold yet is found, and kept there if it can be."""
    known = stored(store)
    if missing := [pair for pair in pairs if pair not in known]:
        known |= {(pair.real, pair.fake): pair for pair in audit(Pictures.of(store), missing)}
        content = {"recipe": RECIPE, "fingerprint": store.fingerprint, "pairs": [asdict(p) for p in known.values()]}
        with suppress(OSError), replacing(store.path / AUDIT) as building:  # the store of somebody else is read only
            building.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return [known[pair] for pair in pairs]


def stored(store: FaceStore) -> dict[tuple[str, str], Pair]:
    """The audit that the store's folder holds, by pair; empty where it holds none of these faces."""
    path = store.path / AUDIT
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["recipe"], content["fingerprint"]) != (RECIPE, store.fingerprint):
            return {}
        pairs = [Pair(str(pair["real"]), str(pair["fake"]), _measures(pair["found"])) for pair in content["pairs"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged, or from elsewhere
        return {}
    return {(pair.real, pair.fake): pair for pair in pairs}


def _measures(found: Any) -> dict[str, dict[str, Bounded]]:
    """What an audit's file holds of a pair; raises as a damaged file does for anything that no audit writes."""
    numbers = ("value", "low", "high")
    measures = {
        kind: {group: {name: float(measure[name]) for name in numbers} for group, measure in groups.items()}
        for kind, groups in found.items()
    }
    for kind, groups in measures.items():
        if kind not in (FILES, PIXELS, BEFORE) or ALL not in groups or not all(map(str.isprintable, groups)):
            raise ValueError("no groups of features")
        if not all(0 <= m["low"] <= m["value"] <= m["high"] <= 1 for m in groups.values()):
            raise ValueError("no AUROC with its interval")
    return measures


def known_of(store: FaceStore, splits: Splits) -> list[Pair] | None:
    """What is stored of the pairs that a run's classifier learns to tell apart; None where some are not audited."""
    known, pairs = stored(store), Roles.of(store, splits).learnt
    return [known[pair] for pair in pairs] if known.keys() >= set(pairs) else None


def audit(pictures: Pictures, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """How well each pair is told apart. Memory does not grow with the store: `MOST` faces of a source are looked at."""
    rows = {source: _some(pictures, source) for source in sorted({source for pair in pairs for source in pair})}
    with tqdm(total=len(rows) + len(pairs), desc="auditing", leave=False, delay=1, disable=quiet() or None) as bar:
        features: dict[str, Features] = {}
        for source, own in rows.items():
            features[source] = _features(pictures, own)
            bar.update()
        found = []
        for real, fake in pairs:
            together = np.concatenate([rows[real], rows[fake]])
            found.append(Pair(real, fake, _told(pictures, together, features[real], features[fake])))
            bar.update()
        return found


def _some(pictures: Pictures, source: str) -> Rows:
    own = np.flatnonzero(pictures.sources == source)
    return own[np.linspace(0, len(own) - 1, min(MOST, len(own))).astype(np.int64)]


def _told(pictures: Pictures, rows: Rows, real: Features, fake: Features) -> dict[str, dict[str, Bounded]]:
    """The AUROC of each kind's features, all and each group apart; nothing of too few faces."""
    labels, groups = pictures.labels[rows], pictures.groups[rows]
    if min(len(np.unique(groups[labels == label])) for label in (REAL, FAKE)) < FEWEST:
        return {}
    found: dict[str, dict[str, Bounded]] = {}
    for kind, of_real in real.items():
        numbers = {
            group: _numbers([np.concatenate(parts) for parts in zip(columns, fake[kind][group], strict=True)])
            for group, columns in of_real.items()
        }
        alone = {group: x for group, x in numbers.items() if x.shape[1]}
        everything = {ALL: np.column_stack(list(alone.values()))} if len(alone) > 1 else {}
        with suppress(FakeganError):  # some folds hold one class: pictures of both are in one group
            measures = _areas(everything | alone, labels, groups)
            guess = {"value": 0.5, "low": 0.5, "high": 0.5}  # where all pictures are alike
            only = next(iter(measures.values()), guess)
            found[kind] = {ALL: measures.get(ALL, only)} | {group: measures.get(group, guess) for group in numbers}
    return found


def _areas(features: Mapping[str, Floats], labels: Labels, groups: StringArray) -> dict[str, Bounded]:
    """AUROC of each cross-validation; an interval is `_WIDER` than a bootstrap's: other faces make other probes."""
    measures = areas([cross_validated(x, labels, groups) for x in features.values()], labels, groups)
    for measure in measures:
        value, low, high = (measure[name] for name in ("value", "low", "high"))
        if value < 1:  # else the bound is exact, and wide as it is
            measure["low"], measure["high"] = (
                max(value - _WIDER * (value - low), 0),
                min(value + _WIDER * (high - value), 1),
            )
    return dict(zip(features, measures, strict=True))


def _numbers(columns: Iterable[Column]) -> Floats:
    """Columns as numbers, (N, K): a number and its square, each common text as yes or no; K may be 0."""
    found = [part for column in columns for part in (_of_text if column.dtype.kind == "U" else _of_number)(column)]
    varying = [part for part in found if np.ptp(part) > 0]
    return np.column_stack(varying) if varying else np.empty((0, 0))


def _of_number(values: Column) -> list[Floats]:
    known = ~np.isnan(values)
    if not known.any():
        return []
    spread = values[known].std() or 1.0
    z = np.where(known, np.clip((values - values[known].mean()) / spread, -_FARTHEST, _FARTHEST), 0.0)
    return [z, np.where(known, z**2, np.mean(z[known] ** 2))]  # the square: classes that differ in spread alone


def _of_text(values: Column) -> list[Floats]:
    known = values != ""
    names, counts = np.unique(values[known], return_counts=True)
    most, share = _COMMON
    common = [names[i] for i in np.argsort(-counts, kind="stable")[:most] if counts[i] >= share * len(values)]
    return [np.where(known, values == name, (values[known] == name).mean()).astype(np.float64) for name in common]


def _features(pictures: Pictures, rows: Rows) -> Features:
    kinds = {FILES: _of_files(pictures.equalised or pictures.files, rows)}
    if pictures.images is not None:
        kinds[PIXELS] = _of_pixels(pictures.images, rows, pictures.size)
    if pictures.equalised is not None:
        kinds[BEFORE] = _of_files(pictures.files, rows)
    return kinds


def _of_files(files: Files, rows: Rows) -> dict[str, list[Column]]:
    own = {name: column[rows] for name, column in files.items()}
    mean = own["jpeg_quantiser_mean"]
    tables = np.where(np.isnan(mean), "", np.char.mod("%.2f", mean))
    with np.errstate(divide="ignore"):
        density = np.log(own["bytes"] / (own["width"] * own["height"]))
    return {
        "format": [own["format"]],
        "size": [np.log(own["width"]), np.log(own["height"]), sizes(own)],
        "JPEG quality": [mean, tables],
        "chroma": [own["chroma"]],
        "bytes a pixel": [np.where(np.isfinite(density), density, np.nan)],
        "EXIF": [own["exif"]],
        "colour profile": [np.where(own["profile"] == "", "none", own["profile"])],
    }


def _of_pixels(images: RowArray, rows: Rows, size: int) -> dict[str, list[Column]]:
    length = at_once(_BATCH, size)
    parts = [_cheap(images[rows[start : start + length]]) for start in range(0, len(rows), length)]
    groups = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: list(numbers.T) for name, numbers in groups.items()}


def _cheap(pixels: npt.NDArray[np.uint8]) -> dict[str, Floats]:  # (B, S, S, 3) -> (B, K) each
    """Measures that need no look at a face."""
    unit = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / 127.5 - 1  # (B, 3, S, S)
    grey = spectrum.grey(unit)
    grey -= grey.mean(axis=(1, 2), keepdims=True)  # else brightness would tell by every measure
    edges = [(grey[:, 0], grey[:, 1]), (grey[:, -1], grey[:, -2])]
    edges += [(grey[:, :, 0], grey[:, :, 1]), (grey[:, :, -1], grey[:, :, -2])]
    steps = [np.abs(outer - inner).mean(axis=1) for outer, inner in edges]
    power, frequency = np.log(spectrum.azimuthal_power(grey) + 1e-8), spectrum.frequencies(grey.shape[1])
    halves = [(frequency > 0) & (frequency <= 0.25), (frequency >= 0.25) & (frequency <= 0.5)]
    slopes = [np.polyfit(np.log(frequency[half]), power[:, half].T, 1)[0] for half in halves]
    fine = power[:, frequency > spectrum.HALF_NYQUIST].mean(axis=1)
    groups = {
        "channel means": unit.mean(axis=(2, 3)),
        "channel deviations": np.log(unit.std(axis=(2, 3)) + 1e-3),
        "colourfulness": (unit.max(axis=1) - unit.min(axis=1)).mean(axis=(1, 2))[:, None],
        "border pixels": np.column_stack([*(outer.mean(axis=1) for outer, _ in edges), *np.log(np.add(steps, 1e-3))]),
        "sharpness": np.column_stack([np.log(spectrum.total_variation(grey) + 1e-4), fine]),
        "spectrum slope": np.column_stack(slopes),
    }
    return {name: numbers.astype(np.float64) for name, numbers in groups.items()}
