"""Pictures of reconstruction errors and of spectra, real against fake. Needs matplotlib (the extra `plots`).

4.8 inches wide with text of 8 points or more, as in plots.py; spectra show fakes as broken lines, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.intervals import Floats, Labels, Sources
from fakegan.evaluation.plots import FAKE_COLOUR, LINES, REAL_COLOUR, empty_figure, shown
from fakegan.evaluation.spectrum import HALF_NYQUIST, frequencies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {  # of the errors
    "l1": "L1: mean absolute difference, of a range of 2",
    "psnr": "PSNR, dB (higher: better copied)",
    "ssim": "SSIM (higher: better copied)",
    "high_frequency": "residual finer than 4 pixels, root mean square",
}
CLASSES = ((0, "real", REAL_COLOUR, "-"), (1, "fake", FAKE_COLOUR, "--"))
ENOUGH = 5  # faces of a source that have a distribution; fewer are dots


def error_distributions(errors: Mapping[str, Floats], labels: Labels, sources: Sources) -> Figure:
    """One panel an error (`AXES`), one shape a source: its distribution, median and middle half; reals first."""
    names = sorted(np.unique(sources), key=lambda source: (labels[sources == source][0], source))
    figure = empty_figure(0.9 * len(errors) + 0.34 * len(errors) * len(names))
    panels = figure.subplots(len(errors), 1, squeeze=False)[:, 0]
    figure.suptitle("Reconstruction error of test faces", fontsize=11)
    for axes, (error, values) in zip(panels, errors.items(), strict=True):
        for place, source in enumerate(names):
            own = values[sources == source]
            colour = CLASSES[labels[sources == source][0]][2]
            if len(own) < ENOUGH or np.ptp(own) == 0:
                axes.plot(own, np.full(len(own), place), "o", color=colour, ms=4)
                continue
            # The density by a Gaussian kernel of Scott's width, its peak 1, from the least to the largest value.
            at = np.linspace(own.min(), own.max(), 100)
            away = (at[:, None] - own) / (1.06 * own.std() * len(own) ** -0.2)  # (100, n)
            density = np.exp(-0.5 * away**2).sum(axis=1)
            density /= density.max()
            axes.fill_between(at, place - 0.42 * density, place + 0.42 * density, color=colour, alpha=0.45, lw=0)
            low, middle, high = np.quantile(own, (0.25, 0.5, 0.75))
            axes.plot([low, high], [place, place], color=colour, lw=3, solid_capstyle="butt")
            axes.plot(middle, place, "o", color="white", mec=colour, ms=5)
        axes.set(xlabel=AXES[error], yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
        axes.set_yticklabels([shown(f"{source} ({CLASSES[labels[sources == source][0]][1]})") for source in names])
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.grid(axis="x", lw=0.4)
    return figure


def mean_spectra(
    spectra: Mapping[str, Floats],
    labels: Labels,
    size: int,  # pixels a side of the pictures
) -> Figure:
    """Mean azimuthal power (N, K) of up to four kinds of pictures; below, how far the fakes' is above the reals'."""
    figure = empty_figure(1.75 * (len(spectra) + 1))
    *panels, below = figure.subplots(len(spectra) + 1, 1, sharex=True)
    figure.suptitle("Power by spatial frequency: mean of test faces in [-1, 1]", fontsize=11)
    at = frequencies(size)
    for axes, (kind, power) in zip(panels, spectra.items(), strict=True):
        for label, name, colour, line in CLASSES:
            if (labels == label).any():
                axes.plot(at, _mean(power[labels == label]), line, color=colour, lw=1.5, label=name)
        axes.set(yscale="log")
        axes.set_title(kind, fontsize=9, loc="left")
        axes.set_ylabel("power", fontsize=9)
    panels[0].axvline(HALF_NYQUIST, color="grey", lw=0.8, ls=":", label="waves of 4 pixels")
    beside_title: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3, "frameon": False}
    panels[0].legend(fontsize=8, borderaxespad=0.2, **beside_title)
    if len(np.unique(labels)) == 2:
        for (kind, power), line in zip(spectra.items(), LINES, strict=False):
            ratio = _mean(power[labels == 1]) / _mean(power[labels == 0])
            below.plot(at, 10 * np.log10(ratio), line, color="black", lw=1.3, label=kind)
        below.legend(fontsize=8, borderaxespad=0.2, **beside_title)
    below.set_title("fake over real", fontsize=9, loc="left")
    below.set_ylabel("dB", fontsize=9)
    below.set_xlabel("spatial frequency, cycles per pixel (above 0.5: diagonals only)", fontsize=9)
    for axes in (*panels, below):
        if axes is not panels[0]:
            axes.axvline(HALF_NYQUIST, color="grey", lw=0.8, ls=":")
        axes.tick_params(which="both", labelsize=8)
        axes.grid(lw=0.3)
    return figure


def rendered(figure: Figure) -> npt.NDArray[np.uint8]:
    """The figure as pixels, (H, W, 3): drawn once for every place that shows it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels: npt.NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return pixels


def _mean(power: Floats) -> Floats:  # (N, K) -> (K,)
    average: Floats = power.mean(axis=0) + 1e-12  # a little above 0: a logarithm follows
    return average
