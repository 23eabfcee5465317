"""Chooses per-channel scales for outputs of convolutions in ONNX Runtime's form, by gradients.

A channel's scale covers its values on a few images, and some room, as other images exceed them. Values on
which the outputs do not depend are not covered: where a SiLU or hard-swish is flat, the gradients g of the
outputs (`trtbuild.search.ranges.first_order`) are near zero, and clipping costs nothing. With the scale s of
a channel, and one zero point z for all channels, rounding costs

    sum g**2 * s**2 / 12        s = max(-low / z, high / (255 - z))

to first order. z is chosen for the least cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.plan import OutputSteps
from trtbuild.search.ranges.first_order import Draw, Gradients

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx_ir as ir

    from trtbuild.plan import Placement
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.measured import Measure

__all__ = ["Scored", "scored_steps"]

_STEPS = 255
# Gradients below this share of the tensor's root mean square are ignored: the same error counts 34 dB less.
_FLAT = 0.02


@dataclass(frozen=True)
class Scored:
    """Per-channel scales of a tensor, and their cost.

    Attributes:
        steps: the scales.
        cost: the squared error of the outputs with these scales, to first order.
    """

    steps: OutputSteps
    cost: float


def scored_steps(
    model: ir.Model,
    placement: Placement,
    tensors: Collection[str],
    outputs: Sequence[str],
    images: Sequence[Feeds],
    measure: Measure,
    rooms: Sequence[float],
) -> dict[float, dict[str, Scored]]:
    """Return for each of `rooms` the per-channel scales of each tensor on which the outputs depend.

    Args:
        model: the float network.
        placement: ONNX Runtime's placement.
        tensors: tensors of `trtbuild.quantization.portable_outputs`.
        outputs: names of the tensors whose error is measured.
        images: the images that choose.
        measure: the error measure from the float outputs of these images.
        rooms: factors, 1 and above, by which a scale covers more than the values seen.

    Raises:
        ModelError: the network has no backward network.
    """
    gradients = Gradients(model, placement, tensors, outputs)
    seen: dict[str, _Seen] = {}
    try:
        for number, feeds in enumerate(images):
            (found,) = gradients.run([Draw(feeds, number, 0)], measure)
            for name, both in found.items():
                if both[0].ndim > 1 and both[0].size:
                    seen.setdefault(name, _Seen()).add(*both)
    finally:
        gradients.close()
    return {room: {name: one.scored(room) for name, one in seen.items()} for room in rooms}


class _Seen:
    """Bounds and sum of squared gradients of each channel, over the images added."""

    def __init__(self) -> None:
        self._low: np.ndarray | float = 0.0
        self._high: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, values: np.ndarray, gradient: np.ndarray) -> None:
        """Add an image."""
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        squares = np.square(gradient, dtype=np.float64)
        counting = np.where(squares > _FLAT**2 * squares.mean(), values, 0)
        self._low = np.minimum(self._low, counting.min(axis=axes))
        self._high = np.maximum(self._high, counting.max(axis=axes))
        self._squares = self._squares + squares.sum(axis=axes)

    def scored(self, room: float) -> Scored:
        """The scales of the least cost."""
        low, high = (np.asarray(one, np.float64) * room for one in (self._low, self._high))
        squares = np.asarray(self._squares, np.float64)
        zeros = np.arange(_STEPS + 1, dtype=np.float64)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            scales = np.maximum(
                np.where(low < 0, -low / zeros, 0.0),
                np.where(high > 0, high / (_STEPS - zeros), 0.0),
            )
            costs = np.where(squares > 0, squares * scales**2 / 12, 0.0).sum(axis=1)
        zero = int(np.argmin(costs))
        own = scales[zero]
        # a channel that is always zero is exact with any scale
        own = np.where((own > 0) & np.isfinite(own), own, 1.0)
        return Scored(OutputSteps(own.astype(np.float32), zero), float(costs[zero]))
