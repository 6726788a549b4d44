"""Pictures of scores: ROC, confusion, histograms. Needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.metrics import Labels, Scores, auroc, roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL_COLOUR, FAKE_COLOUR = "#2f6f9f", "#c8553d"
Sources = npt.NDArray[np.str_]


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def pictures(scores: Scores, labels: Labels, sources: Sources, threshold: float) -> dict[str, Figure]:
    """Figures by name: roc, confusion, score_histogram."""
    return {
        "roc": _roc(scores, labels, sources, threshold),
        "confusion": _confusion(scores, labels, threshold),
        "score_histogram": _histogram(scores, labels, threshold),
    }


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(4.8, 4.2), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def _roc(scores: Scores, labels: Labels, sources: Sources, threshold: float) -> Figure:
    figure, axes = _figure()
    fakes = np.unique(sources[labels == 1])
    for source in fakes if len(fakes) > 1 else []:
        among = (labels == 0) | (sources == source)
        fpr, tpr, _ = roc(scores[among], labels[among])
        axes.plot(fpr, tpr, lw=1, alpha=0.7, label=f"{source} ({auroc(scores[among], labels[among]):.3f})")
    fpr, tpr, _ = roc(scores, labels)
    axes.plot(fpr, tpr, color="black", lw=2, label=f"all fakes ({auroc(scores, labels):.3f})")
    axes.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
    at = scores >= threshold
    axes.plot(at[labels == 0].mean(), at[labels == 1].mean(), "o", color="black", label="threshold from validation")
    axes.set(
        xlabel="real faces called fake",
        ylabel="fake faces found",
        title="ROC, and the area under it",
        aspect="equal",
    )
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _confusion(scores: Scores, labels: Labels, threshold: float) -> Figure:
    figure, axes = _figure()
    counts = np.array([[((labels == y) & ((scores >= threshold) == v)).sum() for v in (0, 1)] for y in (0, 1)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for y in (0, 1):
        for v in (0, 1):
            colour = "white" if shares[y, v] > 0.5 else "black"
            axes.text(v, y, f"{counts[y, v]}\n{shares[y, v]:.1%}", ha="center", va="center", color=colour)
    axes.set(
        xticks=[0, 1],
        yticks=[0, 1],
        xticklabels=["called real", "called fake"],
        title=f"Threshold {threshold:.3f}",
    )
    axes.set_yticklabels(["real", "fake"])
    return figure


def _histogram(scores: Scores, labels: Labels, threshold: float) -> Figure:
    figure, axes = _figure()
    bins = [i / 40 for i in range(41)]
    for label, name, colour in ((0, "real", REAL_COLOUR), (1, "fake", FAKE_COLOUR)):
        axes.hist(scores[labels == label], bins, alpha=0.6, color=colour, label=name, density=True)
    axes.axvline(threshold, color="black", lw=1, ls="--", label="threshold from validation")
    axes.set(xlabel="score: P(fake)", ylabel="density", title="Scores")
    axes.legend(loc="upper center", fontsize=8)
    return figure
