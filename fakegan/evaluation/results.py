"""The files a finished run is read by, metrics.json and scores.csv, and the table people see."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fakegan.errors import FakeganError

METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.csv"
VERDICTS = ("real", "fake")


def write_scores(
    path: Path,
    files: Iterable[str],
    sources: Iterable[str],
    labels: Iterable[int],
    scores: Iterable[float],
    threshold: float,
) -> None:
    """One row a face, in store order: file, source, label (0 real, 1 fake), score P(fake), verdict."""
    building = path.with_name(f".{path.name}.building")
    with building.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:  # as faces.csv
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "source", "label", "score", "verdict"))
        for name, source, label, score in zip(files, sources, labels, scores, strict=True):
            rows.writerow((name, source, label, f"{score:.9g}", VERDICTS[int(score >= threshold)]))
    building.replace(path)


def write_metrics(path: Path, content: dict[str, Any]) -> None:
    """metrics.json, beside and renamed: its presence says that a run has finished."""
    building = path.with_name(f".{path.name}.building")
    with building.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def read_metrics(path: Path) -> dict[str, Any]:
    """What `write_metrics` wrote.

    Raises:
        FakeganError: no such file, or damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FakeganError(f"{path.parent} has not finished: it has no {path.name}") from error
    except ValueError as error:
        raise FakeganError(f"{path} is damaged: run the test stage again after deleting it") from error
    return content


def table(metrics: dict[str, Any]) -> str:
    """A split's measures for a terminal: the whole, then a line a source."""
    lines = [f"{'':<22}{'faces':>7}{'accuracy':>10}{'AUROC':>8}{'real ok':>9}{'fake ok':>9}{'EER':>7}"]
    faces = metrics["n_real"] + metrics["n_fake"]
    whole = [
        _cell(metrics[name], w)
        for name, w in (
            ("accuracy", 10),
            ("auroc", 8),
            ("real_accuracy", 9),
            ("fake_accuracy", 9),
            ("eer", 7),
        )
    ]
    lines.append(f"{'all':<22}{faces:>7}" + "".join(whole))
    for source, m in metrics["by_source"].items():
        name = f"{source} ({m['label']})"
        lines.append(f"{name:<22}{m['n']:>7}{_cell(m['accuracy'], 10)}{_cell(m['auroc'], 8)}")
    return "\n".join(lines)


def _cell(measure: dict[str, float | None], width: int) -> str:
    value = measure["value"]
    return f"{'-' if value is None else f'{value:.3f}':>{width}}"
