"""How much work the choice of ranges does: decided by the size of the network and of the data, by no clock.

The same network and images get the same work on every machine, and so the same ranges.
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
"""Noise over signal of the outputs from which on, 20 dB, a network is worth more time."""

# Nominal seconds of one core: for a multiply-accumulate, and for a value that is rounded.
_PER_MAC = 2e-11
_PER_VALUE = 8e-9
# For a weight in each changed network: it is rounded, written, and read by the sessions.
_PER_WEIGHT = 1.4e-8

# A run for gradients costs about so many plain ones.
_BACKWARD = 3
_NUM_CHOICES = 11
_NUM_CALIBRATIONS = 3
_NUM_MOVES = 7


@dataclass(frozen=True)
class Work:
    """How much is done: images that choose, images that check, random directions an image."""

    num_choosing: int
    num_checking: int
    num_directions: int

    @property
    def num_runs(self) -> int:
        """About how many plain runs of one image that is."""
        gradients = _BACKWARD * self.num_choosing * self.num_directions
        return gradients + _NUM_CHOICES * self.num_checking


# The most first; the last is done in any case.
_LEVELS = {
    Effort.FAST: (Work(0, 16, 0), Work(0, 8, 0), Work(0, 4, 0)),
    Effort.NORMAL: (Work(16, 24, 3), Work(8, 8, 3), Work(4, 4, 2)),
    Effort.HIGH: (Work(32, 48, 4), Work(16, 24, 3), Work(8, 8, 3)),
}
# What is done for a network that is far from float: too few images cannot tell what is good from luck.
# The limit of time ends what takes too long.
_FAR_LEVELS = {
    Effort.FAST: (Work(0, 4, 0),),
    Effort.NORMAL: (Work(16, 32, 3), Work(16, 16, 3), Work(8, 16, 2), Work(8, 8, 2)),
    Effort.HIGH: (Work(32, 32, 4), Work(16, 16, 3), Work(8, 8, 3)),
}
_GRANTED_FAR = {Effort.FAST: 0.0, Effort.NORMAL: 60.0, Effort.HIGH: 400.0}
# Of the calibration's own runs, and the nominal seconds that are always granted.
_SHARE = {Effort.FAST: 0.5, Effort.NORMAL: 0.75, Effort.HIGH: 4.0}
_GRANTED = {Effort.FAST: 4.0, Effort.NORMAL: 12.0, Effort.HIGH: 100.0}
_FOR_MOVES = {Effort.FAST: 0.0, Effort.NORMAL: 24.0, Effort.HIGH: 200.0}


def image_cost(artifact: Artifact) -> float:
    """Return the nominal seconds of one image: multiply-accumulates, where shapes tell them, and values."""
    values = _PER_VALUE * values_of_a_sample(artifact)
    return _PER_MAC * sum(map(node_macs, artifact.model.graph)) + values


def values_of_a_sample(artifact: Artifact) -> float:
    """Return how many values all tensors that have a range hold together for one sample."""
    assert artifact.calibration is not None
    ranges = artifact.calibration.ranges.values()
    num_samples = int(artifact.calibration.provenance.get("num_samples", 1))
    return sum(one.num_values for one in ranges) / num_samples


def work_for(effort: Effort, image_seconds: float, num_images: int) -> Work:
    """Return how much is done for a network of so many nominal seconds an image, calibrated on so many."""
    granted = max(_SHARE[effort] * num_images, _GRANTED[effort] / image_seconds)
    return _most(_LEVELS[effort], granted)


def far_work_for(effort: Effort, image_seconds: float, num_images: int) -> Work:
    """Return how much is done for moves, and far from float: no less than `work_for`."""
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
    """Say whether there is room for moves: some calibrate a changed network, and all write its weights."""
    for_images = _NUM_CALIBRATIONS * num_images * image_cost(artifact)
    for_weights = _NUM_MOVES * _PER_WEIGHT * num_weights(artifact.model)
    return max(for_images, for_weights) <= _FOR_MOVES[effort]
