"""The results of a finished run: metrics.json and scores.csv, and the table that a terminal shows."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import Measure
from fakegan.evaluation.metrics import GUESSING_WORDS, judged
from fakegan.evaluation.verdicts import CALLS, UNKNOWN, UNSURE, VERDICTS, calls
from fakegan.runs.folder import GROUPS_FILE
from fakegan.system.columns import width as columns
from fakegan.system.files import csv_table, read_csv, replacing
from fakegan.system.shell import as_override, command

NAME_WIDTH, FACES_WIDTH, CELL_WIDTH = 33, 6, 20  # columns of a terminal
TABLE_WIDTH = NAME_WIDTH + FACES_WIDTH + 2 * CELL_WIDTH  # 79: some terminals break a line of 80
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
    called_fake: npt.NDArray[np.bool_]  # (N,), by the threshold
    verdicts: npt.NDArray[np.str_]  # (N,), real, fake, unsure, unknown

    def __len__(self) -> int:
        return len(self.files)

    def kept(self, keep: npt.NDArray[np.bool_]) -> FaceScores:  # (N,)
        """Some of the faces."""
        return FaceScores(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})


def write_scores(path: Path, scored: FaceScores) -> None:
    """Write scores.csv (label: 0 real, 1 fake; score: P(fake); call: real or fake), and groups.csv beside it."""
    scores = [f"{score:.17g}" for score in scored.scores]
    columns = (scored.files, scored.sources, scored.labels, scores, calls(scored.called_fake), scored.verdicts)
    _write_csv(path.with_name(GROUPS_FILE), ("file", "group"), (scored.files, scored.groups))
    _write_csv(path, ("file", "source", "label", "score", "call", "verdict"), columns)


def _write_csv(path: Path, header: Sequence[str], columns: Sequence[Iterable[Any]]) -> None:
    with replacing(path) as building, csv_table(building, header) as rows:
        rows.writerows(zip(*columns, strict=True))


def read_scores(path: Path) -> FaceScores:
    """The faces that `write_scores` wrote; a FakeganError where there are no such files, or damaged ones."""
    try:
        rows = read_csv(path)
        group_of = {row["file"]: row["group"] for row in read_csv(path.with_name(GROUPS_FILE))}
        texts = {
            "files": [row["file"] for row in rows],
            "sources": [row["source"] for row in rows],
            "groups": [group_of[row["file"]] for row in rows],
            "verdicts": [VERDICTS[VERDICTS.index(row["verdict"])] for row in rows],
        }
        for cells in texts.values():  # in an array each cell takes as much memory as the longest
            if len(cells) * max(map(len, cells), default=0) > _MAX_COLUMN_CHARACTERS:
                raise ValueError("one cell is far longer than the others")
        found = FaceScores(
            **{name: np.array(cells, dtype=np.str_) for name, cells in texts.items()},
            labels=np.array([int(row["label"]) for row in rows], dtype=np.int64),
            scores=np.array([float(row["score"]) for row in rows]),
            # an older file has the call alone, and names it "verdict"
            called_fake=np.array([CALLS.index(row.get("call", row["verdict"])) == 1 for row in rows], dtype=bool),
        )
        if not rows or not np.isin(found.labels, (0, 1)).all():
            raise ValueError("no faces, or other labels than 0 and 1")
        if not ((found.scores >= 0) & (found.scores <= 1)).all():  # also false for NaN
            raise ValueError("scores outside 0 to 1")
        return found
    except FileNotFoundError as error:
        raise FakeganError(
            f"{path.parent} has no {Path(error.filename).name}: it has not finished, or is of an earlier version; "
            "score it again with evaluate.py run=..."
        ) from error
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise FakeganError(
            f"{path} or {GROUPS_FILE} beside it is damaged or of another version: score the run again"
        ) from error


def write_metrics(path: Path, content: dict[str, Any]) -> None:
    """Write metrics.json whole, and to the disk: a run that has it has finished."""
    with replacing(path, durable=True) as building, building.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of metrics.json; a FakeganError where there is no such file, or a damaged one."""
    if not path.is_file():
        resuming = command("train.py", as_override("resume", path.parent))
        raise FakeganError(f"{path.parent} has not finished: resume it with {resuming}")
    return read_json(path, "run the test stage again after deleting it")


def read_json(
    path: Path,
    cure: str,  # what to do where it is damaged
) -> dict[str, Any]:
    """The top-level table of a run's JSON file; a FakeganError where it has none, or is far too large."""
    try:
        content = None if path.stat().st_size > _MAX_JSON_BYTES else json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # the latter from brackets in brackets in ...
        content = None
    if not isinstance(content, dict):
        raise FakeganError(f"{path} is damaged or of another version: {cure}")
    return content


def table(metrics: dict[str, Any]) -> str:
    """A split's measures for a terminal of 80 columns, with 95% intervals: the whole, its parts, a line a source.

    Where some generators were seen in training and others not, each kind has its own line; no line covers both.
    """
    by_source = metrics["by_source"]
    parts: dict[str, dict[str, Any]] = {name: metrics[name] for name in ("seen", "unseen") if name in metrics}
    fakes = [m for m in by_source.values() if m["label"] == "fake"]
    whole = {f"{name} generators": part for name, part in parts.items()}
    if not parts:
        none_seen = not any(m.get("seen", True) for m in fakes)
        whole = {"unseen generators" if none_seen else "all": metrics}
    rows = [(name, m["n_real"] + m["n_fake"], m["accuracy"], m["auroc"]) for name, m in whole.items()]
    real = next(iter(parts.values()), metrics)  # the same in both parts
    rows.append(("  real faces", real["n_real"], real["real_accuracy"], None))
    for name, m in (parts or {"": metrics}).items():
        rows.append((f"  {f'{name} fakes' if parts else 'fake faces'}", m["n_fake"], m["fake_accuracy"], None))
    kinds = [f" ({m['label']}{'' if m.get('seen', True) else ', unseen'})" for m in by_source.values()]
    names = shortened(by_source, [NAME_WIDTH - len(kind) for kind in kinds])
    for name, kind, m in zip(names, kinds, by_source.values(), strict=True):
        mixed = parts and m["label"] == "real"  # its AUROC is against all fakes, seen and unseen
        rows.append((name + kind, m["n"], m["accuracy"], None if mixed else m["auroc"]))
    lines = [_line("", "faces", "accuracy", "AUROC")]
    lines += [_line(name, str(n), _cell(accuracy), _cell(auroc)) for name, n, accuracy, auroc in rows]
    lines += _over_thresholds(parts or {"": metrics}, several=len(fakes) > 1)
    lines += _verdicts(by_source)
    unseen = {s: m["false_alarms"] for s, m in by_source.items() if "false_alarms" in m and not m.get("seen", True)}
    names = shortened((f"false alarms on {source}" for source in unseen), [NAME_WIDTH] * len(unseen))
    lines += [_line(name, "", _cell(share)) for name, share in zip(names, unseen.values(), strict=True)]
    for how, words in GUESSING_WORDS.items():  # below 0.5 the scores say the opposite of what they should
        names = [name for name, _, _, auroc in rows if auroc is not None and judged(auroc) == how]
        lines += textwrap.wrap(f"{words}: {', '.join(names)}", TABLE_WIDTH) if names else []
    return "\n".join(lines)


def _over_thresholds(parts: dict[str, dict[str, Any]], several: bool) -> list[str]:
    """The measures that need no threshold, a column for each kind of generators."""
    rows = [
        (f"fakes found at {limit:.0%} false alarms", [_cell(m[f"tpr_at_fpr_{limit}"]) for m in parts.values()])
        for limit in (0.01, 0.05)
    ]
    rows.append(("equal error rate (EER)", [_cell(m["eer"]) for m in parts.values()]))
    if several:
        over = [m["over_generators"] for m in parts.values()]
        rows.append(("mean AUROC over generators", [_cell(m["mean_auroc"]) for m in over]))
        rows.append(("worst generator", shortened([m["worst"] for m in over], [CELL_WIDTH - 1] * len(over))))
        rows.append(("  its AUROC", [_cell(m["worst_auroc"]) for m in over]))
    head = [_line("", "", *parts)] if len(parts) > 1 else []
    return [*head, *(_line(name, "", *cells) for name, cells in rows)]


def _verdicts(by_source: dict[str, dict[str, Any]]) -> list[str]:
    """How often a verdict was wrong, and how often there was none, of each class; nothing for a run of before.

    Real faces never seen stand apart from those of sources that were.
    """
    apart = len({m.get("seen", True) for m in by_source.values() if m["label"] == "real"}) > 1
    counts = {name: Counter[str]() for name in ("real faces", "unseen real faces", "seen fakes", "unseen fakes")}
    for m in by_source.values():
        kind = "unseen" if not m.get("seen", True) else "seen"
        real = "unseen real faces" if apart and kind == "unseen" else "real faces"
        counts[real if m["label"] == "real" else f"{kind} fakes"].update(m.get("verdicts", {}))
    lines = []
    for kind, count in counts.items():
        found = {"wrong": count["real" if kind.endswith("fakes") else "fake"]}
        found |= {name: count[name] for name in (UNSURE, UNKNOWN)}
        shares = [f"{n / count.total():.1%} {name}" for name, n in found.items() if count]
        lines += [f"verdicts on {kind}: {', '.join(shares)}"] if shares else []
    return lines


def shortened(names: Iterable[str], widths: Sequence[int]) -> list[str]:
    """Names that fit, in the columns of a terminal: the middle of a longer one becomes dots; no two are alike."""
    short: list[str] = []
    for i, (name, width) in enumerate(zip(names, widths, strict=True)):
        shown = _fitted(name, width)
        short.append(shown if shown == name or shown not in short else _fitted(name, width, f"..{i + 1}.."))
    return short


def _fitted(name: str, width: int, dots: str = "..") -> str:
    if columns(name) <= width:
        return name
    head, tail = "", ""
    for first, last in zip(name, reversed(name), strict=True):
        if columns(head + first + dots + tail) > width:
            break
        head += first
        if columns(head + dots + last + tail) > width:
            break
        tail = last + tail
    return head + dots + tail


def _line(name: str, faces: str, *cells: str) -> str:
    padding = " " * (NAME_WIDTH - columns(name))
    right = (" " * (CELL_WIDTH - columns(cell)) + cell for cell in cells)
    return f"{name}{padding}{faces:>{FACES_WIDTH}}{''.join(right)}".rstrip()


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return ""
    value, low, high = (measure[name] for name in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.2f}, {high:.2f}]"
