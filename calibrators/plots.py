"""Pictures of histograms with thresholds in them; needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from calibrators.errors import NotInstalledError
from calibrators.regrid import magnitude_counts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibrators.histogram import Histogram

__all__ = ["plot_overview", "plot_tensor"]

_NUM_BARS = 256
_DOTS_PER_INCH = 110
_MARKERS = "osD^v<>PX*"


def plot_tensor(
    path: Path, name: str, histogram: Histogram, thresholds: Mapping[str, float]
) -> None:
    """Draw one tensor: counts of |x| on a logarithmic axis, and a line for each threshold.

    Args:
        path: where to write; the suffix decides the format (.png, .svg, .pdf).
        name: of the tensor.
        histogram: of the tensor, with at least one non-zero value.
        thresholds: what to call a threshold, to its amax.

    Raises:
        NotInstalledError: matplotlib is not installed.
    """
    figure = _figure((9.0, 3.6))
    axes = figure.add_subplot()
    counts = magnitude_counts(histogram, _NUM_BARS)
    edges = np.linspace(0, histogram.observed_amax, _NUM_BARS + 1)
    axes.stairs(counts, edges, fill=True, color="0.75", baseline=0.5)
    axes.set_yscale("log")
    for number, (label, amax) in enumerate(thresholds.items()):
        axes.axvline(amax, color=f"C{number % 10}", linewidth=1.2, label=f"{label}  {amax:.4g}")
    share = histogram.num_zeros / max(histogram.num_values, 1)
    axes.set_title(name, fontsize=9, loc="left")
    axes.set_xlabel(f"magnitude ({share:.1%} zeros not shown)", fontsize=8)
    axes.set_ylabel("values", fontsize=8)
    axes.tick_params(labelsize=7)
    if thresholds:
        figure.legend(fontsize=7, loc="outside right upper", frameon=False)
    _save(figure, path)


def plot_overview(
    path: Path, histograms: Mapping[str, Histogram], thresholds: Mapping[str, Mapping[str, float]]
) -> None:
    """Draw all tensors in one picture: each method's threshold as a share of the largest magnitude.

    Args:
        path: where to write; the suffix decides the format.
        histograms: tensor name to statistic, drawn in this order from the top.
        thresholds: method to tensor name to amax.

    Raises:
        NotInstalledError: matplotlib is not installed.
    """
    names = [name for name, histogram in histograms.items() if histogram.observed_amax > 0]
    figure = _figure((8.0, 1.2 + 0.18 * len(names)))
    axes = figure.add_subplot()
    rows = np.arange(len(names))
    axes.hlines(rows, 0, 1, color="0.85", linewidth=1)
    for number, (method, amaxes) in enumerate(thresholds.items()):
        shares = [amaxes.get(name, np.nan) / histograms[name].observed_amax for name in names]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(shares, rows, marker, color=f"C{number % 10}", markersize=4, label=method)
    axes.set_yticks(rows, names, fontsize=6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("threshold as a share of the largest magnitude", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    if thresholds:
        columns = min(len(thresholds), 6)
        axes.legend(
            fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False
        )
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotInstalledError(
            "plots need matplotlib, which is not installed: pip install 'trtbuild[plots]'."
        ) from error
    return Figure(figsize=size, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    import matplotlib as mpl

    # neither a date nor random ids: the same calibration draws the same file
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with mpl.rc_context({"svg.hashsalt": "calibrators"}):
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata=metadata)
