"""How much work the choice of ranges does: decided by the size of network and data, not by a clock.

So the same network and images get the same work, and the same ranges, on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.stats import node_macs
from trtbuild.model.writing import num_weights
from trtbuild.options.effort import Effort

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact

__all__ = [
    "FAR",
    "Work",
    "far_work_for",
    "image_cost",
    "may_move",
    "values_of_a_sample",
    "work_for",
]

FAR = 0.01
"""Noise over signal of the outputs (20 dB) above which a network is far from float and gets more time."""

# Nominal seconds on one core per multiply-accumulate, and per value that is rounded.
_PER_MAC = 2e-11
_PER_VALUE = 8e-9
# Per weight of each changed network: it is rounded, written, and read by the sessions.
_PER_WEIGHT = 1.4e-8

# A run for gradients costs about this many plain runs.
_BACKWARD = 3
_NUM_CHOICES = 11
_NUM_CALIBRATIONS = 3
_NUM_MOVES = 7


@dataclass(frozen=True)
class Work:
    """Amount of work: images that choose, images that check, random directions per image."""

    num_choosing: int
    num_checking: int
    num_directions: int

    @property
    def num_runs(self) -> int:
        """The work as an approximate number of plain runs of one image."""
        gradients = _BACKWARD * self.num_choosing * self.num_directions
        return gradients + _NUM_CHOICES * self.num_checking


# The most work first; the last entry is always allowed.
_LEVELS = {
    Effort.FAST: (Work(0, 16, 0), Work(0, 8, 0), Work(0, 4, 0)),
    Effort.NORMAL: (Work(16, 24, 3), Work(8, 8, 3), Work(4, 4, 2)),
    Effort.HIGH: (Work(32, 48, 4), Work(16, 24, 3), Work(8, 8, 3)),
}
# For networks far from float: with too few images, good choices cannot be told from chance. The time limit
# stops searches that take too long.
_FAR_LEVELS = {
    Effort.FAST: (Work(0, 4, 0),),
    Effort.NORMAL: (Work(16, 32, 3), Work(16, 16, 3), Work(8, 16, 2), Work(8, 8, 2)),
    Effort.HIGH: (Work(32, 32, 4), Work(16, 16, 3), Work(8, 8, 3)),
}
_GRANTED_FAR = {Effort.FAST: 0.0, Effort.NORMAL: 60.0, Effort.HIGH: 400.0}
# Allowed runs as a share of the calibration's own runs, and nominal seconds that are always allowed.
_SHARE = {Effort.FAST: 0.5, Effort.NORMAL: 0.75, Effort.HIGH: 4.0}
_GRANTED = {Effort.FAST: 4.0, Effort.NORMAL: 12.0, Effort.HIGH: 100.0}
_FOR_MOVES = {Effort.FAST: 0.0, Effort.NORMAL: 24.0, Effort.HIGH: 200.0}


def image_cost(artifact: Artifact) -> float:
    """Return the nominal seconds of one image: for values, and multiply-accumulates if shapes are known."""
    values = _PER_VALUE * values_of_a_sample(artifact)
    return _PER_MAC * sum(map(node_macs, artifact.model.graph)) + values


def values_of_a_sample(artifact: Artifact) -> float:
    """Return how many values all tensors with a range have together for one sample."""
    assert artifact.calibration is not None
    ranges = artifact.calibration.ranges.values()
    num_samples = int(artifact.calibration.provenance.get("num_samples", 1))
    return sum(one.num_values for one in ranges) / num_samples


def work_for(effort: Effort, image_seconds: float, num_images: int) -> Work:
    """Return the work for a network of so many nominal seconds per image, calibrated on `num_images`."""
    granted = max(_SHARE[effort] * num_images, _GRANTED[effort] / image_seconds)
    return _most(_LEVELS[effort], granted)


def far_work_for(effort: Effort, image_seconds: float, num_images: int) -> Work:
    """Return the work for moves, and for networks far from float: at least that of `work_for`."""
    work = work_for(effort, image_seconds, num_images)
    far = _most(_FAR_LEVELS[effort], _GRANTED_FAR[effort] / image_seconds)
    return Work(
        max(work.num_choosing, far.num_choosing),
        max(work.num_checking, far.num_checking),
        max(work.num_directions, far.num_directions),
    )


def _most(levels: tuple[Work, ...], num_runs: float) -> Work:
    return next((work for work in levels if work.num_runs <= num_runs), levels[-1])


def may_move(effort: Effort, artifact: Artifact, num_images: int) -> bool:
    """Return whether moves are affordable: some calibrate a changed network, and all write its weights."""
    for_images = _NUM_CALIBRATIONS * num_images * image_cost(artifact)
    for_weights = _NUM_MOVES * _PER_WEIGHT * num_weights(artifact.model)
    return max(for_images, for_weights) <= _FOR_MOVES[effort]
