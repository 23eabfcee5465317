"""Finds the ranges of a network that a search has changed, with the same samples and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.calibration import calibrate
from trtbuild.model.traversal import values_by_name
from trtbuild.progress import Progress, silent
from trtbuild.quantization import watched_tensors

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact
    from trtbuild.calibration import CalibrateOptions
    from trtbuild.data import Source

__all__ = ["Recalibration"]


@dataclass(frozen=True)
class Recalibration:
    """How a search finds ranges.

    Attributes:
        source: the calibration samples; the samples of the verdict must not be among them.
        options: calibration options.
        progress: told of every sample.
    """

    source: Source
    options: CalibrateOptions
    progress: Progress = silent

    def __call__(self, changed: Artifact) -> Artifact:
        """Return the network with ranges of the tensors that INT8 needs, and of those that had ranges before.

        Raises:
            DataError: a sample does not load.
        """
        tensors = set(watched_tensors(changed.model, changed.request))
        if changed.calibration is not None:
            tensors |= (
                changed.calibration.ranges.keys() & values_by_name(changed.model.graph).keys()
            )
        return calibrate(
            changed,
            self.source,
            sorted(tensors),
            self.options,
            self.progress,
            earlier=changed.calibration,
        )
