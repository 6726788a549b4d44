"""Pictures of scores and of comparisons. Needs matplotlib (the extra `plots`).

All are 4.8 inches wide with text of 8 points or more: they can be read on a phone.
"""

from __future__ import annotations

import importlib.util
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.calibration import reliability
from fakegan.evaluation.intervals import Floats, Labels, Sources
from fakegan.evaluation.metrics import CALIBRATION_BINS, seen_and_unseen
from fakegan.evaluation.roc import auroc, roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL_COLOUR, FAKE_COLOUR, UNSEEN_COLOUR = "#2f6f9f", "#c8553d", "#e6a817"
# Okabe and Ito's palette, which colour-blind people can tell apart; its yellow is too pale for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
LINES = ("-", "--", ":", "-.")  # one round of the colours each
ALL_FAKES = "all fakes"
_SHORT_NAME = 22  # letters: two columns of such names fit into a legend

Kinds = Mapping[str, npt.NDArray[np.bool_]]  # fakes by name, (N,) each
Distribution = tuple[Floats, Kinds, float]  # scores (N,), faces by kind, the threshold


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def pictures(
    scores: Floats,
    labels: Labels,
    sources: Sources,
    threshold: float,
    uncalibrated: Floats | None = None,  # the same faces' scores before the temperature
    learnt_from: Collection[str] | None = None,  # sources that took part in training; None: not known
) -> dict[str, Figure]:
    """Figures by name: roc, confusion, score_histogram, and reliability where there are uncalibrated scores.

    Generators seen in training and unseen generators are drawn separately, with the real faces of `seen_and_unseen`.
    """
    if apart := seen_and_unseen(labels, sources, learnt_from):
        kept = np.any([*apart.values()], axis=0)
        scores, labels, sources = scores[kept], labels[kept], sources[kept]
        uncalibrated = None if uncalibrated is None else uncalibrated[kept]
    fake = labels == 1
    unseen = learnt_from is not None and not np.isin(sources[fake], sorted(learnt_from)).any()
    parts = seen_and_unseen(labels, sources, learnt_from)
    kinds = {f"{name} fakes": fake & part for name, part in parts.items()}
    kinds = kinds or {"unseen fakes" if unseen else ALL_FAKES: fake}
    figures = {
        "roc": _roc(scores, labels, sources, threshold, kinds),
        "confusion": _confusion(scores, labels, threshold, kinds),
        "score_histogram": _histogram(scores, labels, threshold, kinds),
    }
    if uncalibrated is not None:
        figures["reliability"] = _reliability(scores, uncalibrated, labels, kinds)
    return figures


def generator_bars(
    bars: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float | None]]]],  # kind -> generator -> name -> measure
) -> Figure:
    """AUROC by generator, a part of the picture for each kind, a bar for each name, with intervals and guessing."""
    names = list(dict.fromkeys(name for own in bars.values() for by_name in own.values() for name in by_name))
    counts = [sum(len(by_name) + 0.7 for by_name in own.values()) for own in bars.values()]
    texts = [_wrapped(name, 70) for name in names] if len(names) > 1 else []
    figure = empty_figure(0.3 * sum(counts) + 0.55 * len(bars) + 0.4 + 0.2 * sum(t.count("\n") + 1 for t in texts))
    panels = figure.subplots(len(bars), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    handles: dict[str, Any] = {}
    for axes, (kind, own) in zip(panels, bars.items(), strict=True):
        place, ticks = 0.0, list[float]()
        for by_name in own.values():
            ticks.append(place + (len(by_name) - 1) / 2)
            for name, measure in by_name.items():
                value, low, high = (measure[at] or 0.0 for at in ("value", "low", "high"))
                colour = COLOURS[names.index(name) % len(COLOURS)]
                handles[_wrapped(name, 70)] = axes.barh(place, value, 0.9, color=colour, alpha=0.75)
                axes.plot([low, high], [place, place], color="black", lw=1.2)
                axes.text(1.02, place, f"{value:.2f}", va="center", fontsize=8)
                place += 1
            place += 0.7
        axes.axvline(0.5, color="black", lw=1, ls="--")
        axes.set(xlim=(0, 1), ylim=(place - 0.6, -0.6), yticks=ticks)
        axes.set_yticklabels([_wrapped(generator) for generator in own], fontsize=8)
        axes.set_title(kind, fontsize=9, loc="left")
    panels[-1].tick_params(axis="x", labelsize=8)
    panels[-1].set_xlabel("AUROC; broken line: guessing, to its left worse than guessing", fontsize=8)
    if texts:
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", fontsize=8
        )  # a screen may end below
    return figure


def wins_matrix(
    wins: npt.NDArray[np.int64],  # (K, K), 1 where the row beats the column, -1 where it loses, 0 undecided
    names: Sequence[str],
) -> Figure:
    """Which row beats which column; a column shows its configuration's number."""
    from matplotlib.colors import ListedColormap

    figure, axes = _figure()
    off_diagonal = np.where(np.eye(len(names)), np.nan, wins)
    colours = ListedColormap([COLOURS[1], "#e6e6e6", COLOURS[0]])
    axes.imshow(off_diagonal, cmap=colours, vmin=-1, vmax=1, aspect="auto")  # square cells push names off the figure
    for row, column in zip(*np.nonzero(~np.isnan(off_diagonal)), strict=True):
        won = int(wins[row, column])
        word = {1: "wins", -1: "loses", 0: "="}[won]
        axes.text(column, row, word, ha="center", va="center", fontsize=8, color="white" if won else "black")
    axes.set(xticks=range(len(names)), yticks=range(len(names)))
    axes.set_title("Does the row beat the column?\n(=: undecided)", fontsize=10)
    axes.set_xticklabels([str(place) for place in range(1, len(names) + 1)])
    axes.set_yticklabels([_wrapped(f"{place}: {name}") for place, name in enumerate(names, 1)], fontsize=8)
    return figure


def heat_map(
    values: Floats,  # (R, C), AUROC of each row's run on each column's generator
    unseen: npt.NDArray[np.bool_],  # (R, C), whether the run has not learnt from the generator
    rows: Sequence[str],
    columns: Sequence[str],
) -> Figure:
    """AUROC by what was learnt from and what was tested; a frame marks the unseen."""
    from matplotlib.patches import Rectangle

    figure, axes = _figure(1.6 + 0.5 * len(rows))
    axes.imshow(values, cmap="Blues", vmin=0.3, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.75 else "black"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8, color=colour)
    for row, column in np.argwhere(unseen):
        frame = (column - 0.46, row - 0.44)
        axes.add_patch(Rectangle(frame, 0.92, 0.88, fill=False, edgecolor=COLOURS[1], lw=2))
    axes.set(xticks=range(len(columns)), yticks=range(len(rows)), xlabel="tested on", ylabel="learnt from")
    turned: dict[str, Any] = {"rotation": 45, "ha": "right"} if len(columns) > 4 else {}
    axes.set_xticklabels([_wrapped(name, 12) for name in columns], fontsize=8, **turned)
    axes.set_yticklabels([_wrapped(name) for name in rows], fontsize=8)
    axes.set_title("AUROC; framed: never seen in training", fontsize=10)
    return figure


def roc_comparison(
    curves: Mapping[str, Sequence[tuple[Floats, Labels]]],  # by configuration, one pair a seed
) -> Figure:
    """ROC of each configuration: a thin line a seed, and their mean in bold."""
    texts = [
        _wrapped(f"{name} ({np.mean([auroc(scores, labels) for scores, labels in seeds]):.3f})", 70)
        for name, seeds in curves.items()
    ]
    figure, axes = _figure(4.2 + 0.2 * sum(text.count("\n") + 1 for text in texts))
    at = np.linspace(0, 1, 501)
    for i, (text, seeds) in enumerate(zip(texts, curves.values(), strict=True)):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)]}
        rates = [roc(scores, labels) for scores, labels in seeds]
        for fpr, tpr in rates:
            axes.plot(fpr, tpr, lw=0.6, alpha=0.5, **style)
        mean = np.append(0.0, np.mean([np.interp(at, fpr, tpr) for fpr, tpr in rates], axis=0))
        style |= {"ls": LINES[i // len(COLOURS) % len(LINES)], "lw": 2.2}
        axes.plot(np.append(0.0, at), mean, label=text, **style)
    _finish_roc(axes)
    figure.legend(loc="outside lower center", fontsize=8)
    return figure


def score_histograms(found: Mapping[str, Distribution]) -> Figure:  # by configuration
    """A panel for each configuration, all with the same axes: which share of each kind of faces has which score."""
    figure = empty_figure(1.5 * len(found) + 0.9)
    panels = figure.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    colours, handles = (REAL_COLOUR, FAKE_COLOUR, UNSEEN_COLOUR), dict[str, Any]()
    bins = [i / 40 for i in range(41)]
    for axes, (name, (scores, kinds, threshold)) in zip(panels, found.items(), strict=True):
        for kind, own in kinds.items():
            colour = colours[0 if kind == "real" else 2 if kind.endswith("never seen") else 1]
            weights = np.full(int(own.sum()), 100 / own.sum())
            *_, handles[kind] = axes.hist(scores[own], bins, weights=weights, alpha=0.55, color=colour)
        handles["threshold from validation"] = axes.axvline(threshold, color="black", lw=1, ls="--")
        axes.set_title(_wrapped(name, 60), fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
    panels[0].set_ylim(0, min(panels[0].get_ylim()[1], 30))  # a single bar of nearly all faces would hide the others
    panels[-1].set_xlabel("score: P(fake)")
    figure.supylabel("% of the kind (cut at 30)", fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", fontsize=8, ncols=2)
    return figure


def seeds_plot(aurocs: Mapping[str, Sequence[float]]) -> Figure:  # by configuration, one a seed
    """A dot for each seed and a bar at their mean, one line a configuration."""
    figure, axes = _figure(1.4 + 0.5 * len(aurocs))
    for row, of_seeds in enumerate(aurocs.values()):
        colour, mean = COLOURS[row % len(COLOURS)], float(np.mean(of_seeds))
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, lw=3, solid_capstyle="butt")
        axes.plot(of_seeds, np.full(len(of_seeds), row), "o", color=colour, ms=6, mec="white", mew=0.8, alpha=0.8)
        axes.annotate(f"{mean:.3f}", (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set(xlabel="AUROC", ylim=(len(aurocs) - 0.5, -0.5), yticks=range(len(aurocs)))
    axes.set_yticklabels([_wrapped(name) for name in aurocs], fontsize=8)
    axes.set_title("Dots: seeds; bar and number: their mean", fontsize=10)
    axes.grid(axis="x", lw=0.4)
    return figure


def shown(name: str) -> str:
    """A name as matplotlib draws it letter by letter: it would set text between two $ as a formula.

    It also leaves names that begin with _ out of legends, and fails on bytes that are no text.
    """
    plain = name.encode("utf-8", "replace").decode().replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def empty_figure(height: float) -> Figure:  # inches
    """A figure of 4.8 inches width without axes."""
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    return Figure(figsize=(4.8, height), dpi=120, layout="constrained")


def _figure(height: float = 4.2) -> tuple[Figure, Axes]:
    figure = empty_figure(height)
    return figure, figure.add_subplot()


def _wrapped(name: str, width: int = 17) -> str:
    """A configuration's name on several lines of so many letters: beside the axes there is little room."""
    return "\n".join(textwrap.wrap(shown(name), width, break_long_words=False))


def _finish_roc(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
    axes.set(xlabel="real faces called fake", ylabel="fake faces found", title="ROC, and the area under it")


def _roc(scores: Floats, labels: Labels, sources: Sources, threshold: float, kinds: Kinds) -> Figure:
    fakes = np.unique(sources[labels == 1])
    fakes = fakes if len(fakes) > 1 else fakes[:0]
    columns = 1 if max((len(name) for name in fakes), default=0) > _SHORT_NAME else 2
    figure, axes = _figure(4.2 + 0.17 * math.ceil((len(fakes) + len(kinds) + 1) / columns))
    unseen = {*sources[kinds["unseen fakes"]].tolist()} if "unseen fakes" in kinds else set()

    def draw(among: npt.NDArray[np.bool_], name: str, **style: Any) -> None:
        label = shown(f"{name} ({auroc(scores[among], labels[among]):.3f})")
        axes.plot(*roc(scores[among], labels[among]), label=label, **style)

    for i, source in enumerate(fakes.tolist()):
        colour, line = COLOURS[i % (len(COLOURS) - 1)], LINES[i // (len(COLOURS) - 1) % len(LINES)]  # black: all fakes
        name = f"{source}, unseen" if source in unseen else source
        draw((labels == 0) | (sources == source), name, color=colour, ls=line, lw=1.2, alpha=0.8)
    for (kind, fake), line in zip(kinds.items(), LINES, strict=False):
        draw(fake | (labels == 0), kind, color="black", ls=line, lw=2)
    _finish_roc(axes)
    called = scores >= threshold
    found = [called[fake].mean() for fake in kinds.values()]
    axes.plot([called[labels == 0].mean()] * len(found), found, "o", color="black", label="threshold from validation")
    axes.set(aspect="equal")
    figure.legend(loc="outside lower center", fontsize=8, ncols=columns)  # below the curves, however many there are
    return figure


def _confusion(scores: Floats, labels: Labels, threshold: float, kinds: Kinds) -> Figure:
    figure, axes = _figure()
    rows = {"real": labels == 0, **kinds}
    counts = np.array([[(own & ((scores >= threshold) == v)).sum() for v in (0, 1)] for own in rows.values()])
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, v), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        axes.text(v, y, f"{counts[y, v]}\n{share:.1%}", ha="center", va="center", color=colour)
    axes.set(xticks=[0, 1], yticks=range(len(rows)), title=f"Threshold {threshold:.3f}")
    axes.set_xticklabels(["called real", "called fake"])
    axes.set_yticklabels(["fake" if name == ALL_FAKES else name.replace(" ", "\n") for name in rows])
    return figure


def _histogram(scores: Floats, labels: Labels, threshold: float, kinds: Kinds) -> Figure:
    figure, axes = _figure()
    bins = [i / 40 for i in range(41)]
    axes.hist(scores[labels == 0], bins, alpha=0.6, color=REAL_COLOUR, label="real", density=True)
    for name, fake in kinds.items():
        colour = UNSEEN_COLOUR if name == "unseen fakes" else FAKE_COLOUR
        label = "fake" if name == ALL_FAKES else name
        axes.hist(scores[fake], bins, alpha=0.6, color=colour, label=label, density=True)
    axes.axvline(threshold, color="black", lw=1, ls="--", label="threshold from validation")
    axes.set(xlabel="score: P(fake)", ylabel="density", title="Scores")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    return figure


def _reliability(scores: Floats, uncalibrated: Floats, labels: Labels, kinds: Kinds) -> Figure:
    figure = empty_figure(5.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":", label="as it should be")
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    (kind, fake), *others = kinds.items()
    of = "" if kind == ALL_FAKES else f", {kind}"
    curves = [(uncalibrated, fake, f"before the temperature{of}", COLOURS[1], "s")]
    curves += [(scores, fake, f"after it{of}", COLOURS[0], "o")]
    curves += [(scores, other, f"after it, {name}", COLOURS[2], "^") for name, other in others]
    for given, own, name, colour, marker in curves:
        among = own | (labels == 0)
        mean_score, share, count = reliability(given[among], labels[among])
        some = count > 0
        axes.plot(mean_score[some], share[some], marker=marker, ms=4, lw=1.3, color=colour, label=name)
        below.stairs(count, edges, color=colour, lw=1.3)
    axes.set(ylabel="share of fakes", title="Reliability", ylim=(-0.03, 1.03))
    figure.legend(loc="outside lower center", fontsize=8)
    below.set(xlabel="score: P(fake)", ylabel="faces", xlim=(-0.02, 1.02))
    return figure
