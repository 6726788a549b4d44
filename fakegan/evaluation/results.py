"""The files a finished run is read by, metrics.json and scores.csv, and the table people see."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.files import replacing

METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.csv"
GROUPS_FILE = "groups.csv"
VERDICTS = ("real", "fake")
# A run may come from elsewhere: nothing of it is read that is far larger than such a file ever is.
_MAX_JSON_BYTES = 64 * 2**20  # some 10 kB for each source
_MAX_COLUMN_CHARACTERS = 2**30  # 4 GiB


@dataclass(frozen=True)
class FaceScores:
    """Scored faces, in store order."""

    files: npt.NDArray[np.str_]  # (N,)
    sources: npt.NDArray[np.str_]  # (N,)
    labels: npt.NDArray[np.int64]  # (N,), 0 real and 1 fake
    groups: npt.NDArray[np.str_]  # (N,), identity or origin: what an interval draws
    scores: npt.NDArray[np.float64]  # (N,), P(fake)
    called_fake: npt.NDArray[np.bool_]  # (N,), the verdict

    def __len__(self) -> int:
        return len(self.files)

    def checked(self) -> FaceScores:
        """Itself.

        Raises:
            ValueError: no face, a label other than 0 and 1, a score that is no probability.
        """
        if not len(self) or not np.isin(self.labels, (0, 1)).all():
            raise ValueError("no faces, or other labels than 0 and 1")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():  # also false for NaN
            raise ValueError("scores outside 0 to 1")
        return self


def write_scores(path: Path, scored: FaceScores) -> None:
    """scores.csv, a row a face: file, source, label (0 real, 1 fake), score P(fake), verdict; groups.csv beside it."""
    verdicts = [VERDICTS[int(fake)] for fake in scored.called_fake]
    scores = [f"{score:.17g}" for score in scored.scores]
    columns = (scored.files, scored.sources, scored.labels, scores, verdicts)
    _write_csv(path.with_name(GROUPS_FILE), ("file", "group"), (scored.files, scored.groups))
    _write_csv(path, ("file", "source", "label", "score", "verdict"), columns)


def _write_csv(path: Path, header: Sequence[str], columns: Sequence[Iterable[Any]]) -> None:
    with (
        replacing(path) as building,
        building.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # as faces.csv
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header)
        rows.writerows(zip(*columns, strict=True))


def read_scores(path: Path) -> FaceScores:
    """What `write_scores` wrote.

    Raises:
        FakeganError: no such files, or damaged ones.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        with path.with_name(GROUPS_FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            group_of = {row["file"]: row["group"] for row in csv.DictReader(file)}
        return FaceScores(
            files=_texts([row["file"] for row in rows]),
            sources=_texts([row["source"] for row in rows]),
            labels=np.array([int(row["label"]) for row in rows], dtype=np.int64),
            groups=_texts([group_of[row["file"]] for row in rows]),
            scores=np.array([float(row["score"]) for row in rows]),
            called_fake=np.array([VERDICTS.index(row["verdict"]) == 1 for row in rows], dtype=bool),
        ).checked()
    except FileNotFoundError as error:
        raise FakeganError(
            f"{path.parent} has no {Path(error.filename).name}: it has not finished, or is of an earlier version; "
            "score it again with evaluate.py run=..."
        ) from error
    except (KeyError, ValueError, TypeError, OverflowError, csv.Error) as error:
        raise FakeganError(
            f"{path} or {GROUPS_FILE} beside it is damaged or of another version: score the run again"
        ) from error


def _texts(cells: list[str]) -> npt.NDArray[np.str_]:
    """A column in memory, where each cell takes as much as the longest."""
    if len(cells) * max(map(len, cells), default=0) > _MAX_COLUMN_CHARACTERS:
        raise ValueError("one cell is far longer than the others")
    return np.array(cells, dtype=np.str_)


def write_metrics(path: Path, content: dict[str, Any]) -> None:
    """metrics.json, beside and renamed: its presence says that a run has finished."""
    with replacing(path, durable=True) as building, building.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)


def read_metrics(path: Path) -> dict[str, Any]:
    """What `write_metrics` wrote.

    Raises:
        FakeganError: no such file, or damaged.
    """
    if not path.is_file():
        raise FakeganError(f"{path.parent} has not finished: it has no {path.name}")
    return read_json(path, "run the test stage again after deleting it")


def read_json(
    path: Path,
    cure: str,  # what to do where it is damaged
) -> dict[str, Any]:
    """The table in a JSON file of a run.

    Raises:
        FakeganError: it holds none, or is far larger than any that a run writes.
    """
    try:
        content = None if path.stat().st_size > _MAX_JSON_BYTES else json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # the latter from brackets in brackets in ...
        content = None
    if not isinstance(content, dict):
        raise FakeganError(f"{path} is damaged or of another version: {cure}")
    return content


def table(metrics: dict[str, Any]) -> str:
    """A split's measures for a terminal, with 95% intervals: the whole, a line a source, the worst generator."""
    lines = [f"{'':<22}{'faces':>6}{'accuracy':>20}{'AUROC':>20}{'real ok':>20}{'fake ok':>20}"]
    whole = [_cell(metrics[name]) for name in ("accuracy", "auroc", "real_accuracy", "fake_accuracy")]
    lines.append(f"{'all':<22}{metrics['n_real'] + metrics['n_fake']:>6}" + "".join(whole))
    for source, m in metrics["by_source"].items():
        name = f"{source} ({m['label']})"
        lines.append(f"{name:<22}{m['n']:>6}{_cell(m['accuracy'])}{_cell(m['auroc'])}")
    rates = [f"{_cell(metrics[f'tpr_at_fpr_{limit}']).strip()} at {limit:.0%}" for limit in (0.01, 0.05)]
    lines.append(
        f"fakes found while so many reals are called fake: {', '.join(rates)}; EER {_cell(metrics['eer']).strip()}"
    )
    generators = metrics["over_generators"]
    if len([m for m in metrics["by_source"].values() if m["label"] == "fake"]) > 1:
        mean, worst = (_cell(generators[f"{which}_auroc"]).strip() for which in ("mean", "worst"))
        lines.append(f"mean AUROC over generators {mean}; worst: {generators['worst']} {worst}")
    return "\n".join(lines)


def _cell(measure: dict[str, float | None]) -> str:
    value, low, high = (measure[name] for name in ("value", "low", "high"))
    if value is None:
        return f"{'-':>20}"
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{f'{value:.3f}{interval}':>20}"
