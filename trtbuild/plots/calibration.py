"""Plots of a calibration: a histogram with thresholds for each tensor, and an overview."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from calibrators import METHODS
from calibrators.grid import lower_edges
from trtbuild.errors import InputError, OptionError
from trtbuild.files import make_directory, staged_files
from trtbuild.plots.data import Bars, Dots, Mark
from trtbuild.plots.svg import picture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibrators import Calibration, Histogram
    from trtbuild.plots.data import Plot

__all__ = ["calibration_plots", "histogram_plot", "plot_file_name", "plot_folder", "write_plots"]

_NUM_BARS = 96
_LONGEST_STEM = 60
_PICTURES = frozenset({".png", ".svg", ".pdf", ".jpg", ".jpeg"})


def histogram_plot(name: str, histogram: Histogram, amaxes: Mapping[str, float]) -> Bars:
    """Return a plot of magnitudes from 0 to the largest (seen or threshold), with counts on a log scale.

    Args:
        name: name of the tensor.
        histogram: its statistics; zeros are left out.
        amaxes: label -> threshold.
    """
    end = max([histogram.observed_amax, *amaxes.values()]) * 1.02
    bins, counts = histogram.magnitudes()
    middles = (lower_edges(bins) + lower_edges(bins + 1)) / 2
    heights, edges = np.histogram(middles, bins=_NUM_BARS, range=(0.0, end), weights=counts)
    marks = [
        Mark(amax, f"{label} {amax:.4g}", number)
        for number, (label, amax) in enumerate(amaxes.items())
    ]
    caption = f"magnitudes of {name}"
    return Bars(caption, edges.tolist(), heights.tolist(), "|x|", marks, logarithmic=True)


def calibration_plots(calibration: Calibration) -> dict[str, Plot]:
    """Return plots by file name: an overview, and each tensor with every method's threshold.

    Raises:
        InputError: the calibration keeps no histograms.
    """
    if calibration.histograms is None:
        raise InputError("this calibration keeps no histograms, so there is nothing to draw.")
    chosen = {
        method: {n: r.amax for n, r in calibration.chosen_with(method).ranges.items()}
        for method in METHODS
    }
    known = {n: h for n, h in calibration.histograms.items() if n in calibration.ranges}
    drawn = {name: histogram for name, histogram in known.items() if histogram.observed_amax > 0}
    shares = {
        method: [amaxes[name] / histogram.observed_amax for name, histogram in drawn.items()]
        for method, amaxes in chosen.items()
    }
    plots: dict[str, Plot] = {
        "overview.svg": Dots(
            "thresholds as a share of the largest magnitude", list(drawn), shares, ""
        )
    }
    for number, (name, histogram) in enumerate(known.items()):
        if name in drawn:
            amaxes = {method: found[name] for method, found in chosen.items()}
            plots[plot_file_name(number, name)] = histogram_plot(name, histogram, amaxes)
    return plots


def plot_file_name(number: int, tensor: str) -> str:
    """Return a file name for the plot of `tensor` that is valid on all systems."""
    return f"{number:03d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', tensor)[:_LONGEST_STEM]}.svg"


def plot_folder(path: Path) -> Path:
    """Create the folder `path` for plots.

    Raises:
        OptionError: its name is that of a picture file.
        OutputError: it cannot be created or written.
    """
    if path.suffix.lower() in _PICTURES:
        raise OptionError(
            f"plots are SVG files in a folder, one for each tensor, and '{path}' names one "
            f"{path.suffix} file; give a folder, such as '{path.with_suffix('')}'."
        )
    return make_directory(path)


def write_plots(plots: Mapping[str, Plot], folder: Path) -> list[Path]:
    """Write plots, by their file names, into `folder`; either all of them or none.

    Raises:
        OutputError: a file cannot be written.
    """
    with staged_files(folder) as staged:
        for name, plot in plots.items():
            (staged / name).write_text(picture(plot), encoding="utf-8", newline="\n")
    return [folder / name for name in plots]
