"""Ranges of a network that a search has changed: on the same samples, by the same options."""

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
        source: the calibration samples; what is judged later must not be among them.
        options: how ranges are found on them.
        progress: told of every sample.
    """

    source: Source
    options: CalibrateOptions
    progress: Progress = silent

    def __call__(self, changed: Artifact) -> Artifact:
        """Return the network with ranges of what INT8 needs, and of what it had ranges of and still has.

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
