"""Pictures of a calibration: a histogram per tensor with every method's threshold, and an overview."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from calibrators import METHODS
from calibrators.plots import plot_overview, plot_tensor
from trtbuild.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from calibrators import Calibration

__all__ = ["plot_calibration"]


def plot_calibration(calibration: Calibration, folder: Path) -> list[Path]:
    """Write ``overview.svg`` and one picture per tensor into `folder`.

    Returns:
        The files written, the overview first.

    Raises:
        InputError: the calibration keeps no histograms.
        calibrators.errors.NotInstalledError: matplotlib is not installed.
    """
    if calibration.histograms is None:
        raise InputError("this calibration keeps no histograms, so there is nothing to draw.")
    chosen = {
        method: {n: r.amax for n, r in calibration.chosen_with(method).ranges.items()}
        for method in METHODS
    }
    histograms = {n: h for n, h in calibration.histograms.items() if n in calibration.ranges}
    overview = folder / "overview.svg"
    plot_overview(overview, histograms, chosen)
    written = [overview]
    for number, (name, histogram) in enumerate(histograms.items()):
        if histogram.observed_amax > 0:
            path = folder / f"{number:03d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}.svg"
            plot_tensor(path, name, histogram, {m: amaxes[name] for m, amaxes in chosen.items()})
            written.append(path)
    return written
