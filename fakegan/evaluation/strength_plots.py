"""Curves of a measure against the strength of each degradation. Needs matplotlib (the extra `plots`).

4.8 inches wide with text of 8 points or more, as in plots.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fakegan.evaluation.plots import COLOURS, LINES, empty_figure, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, float, float, float]  # strength, value, and its interval
Curve = Mapping[str, Sequence[Point]]  # by kind of degradation


def strength_curves(
    curves: Mapping[str, Curve],  # by name; all have the same kinds
    units: Mapping[str, str],  # of the kinds' strengths
    measure: str,  # on the other axis
) -> Figure:
    """A panel for each kind: a line for each curve, its 95% interval as a band."""
    kinds = list(next(iter(curves.values())))
    lines = -(-len(kinds) // 2)
    names = ["\n".join(textwrap.wrap(shown(name), 70, break_long_words=False)) for name in curves]
    figure = empty_figure(1.5 * lines + 0.6 + 0.2 * sum(name.count("\n") + 1 for name in names))
    panels = figure.subplots(lines, 2, sharey=True, squeeze=False).ravel()
    figure.suptitle(measure, fontsize=11)
    for axes, kind in zip(panels, kinds, strict=False):
        first = kind == kinds[0]  # the others are not in the legend
        for i, curve in enumerate(curves.values()):
            at, value, low, high = np.array(sorted(curve[kind])).T
            colour, line = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
            axes.plot(at, value, line, marker="o", ms=3, lw=1.4, color=colour, label=names[i] if first else None)
            axes.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
        axes.set_title(kind, fontsize=9, loc="left")
        axes.set_xlabel(shown(units.get(kind, "")), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(lw=0.3)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    figure.legend(loc="outside lower center", fontsize=8)
    return figure
