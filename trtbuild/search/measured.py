"""Measures the error of outputs relative to the float network's, as one number summed over parts of outputs.

    sum over parts of    sum (x - y)**2 / sum (x - m)**2

The inner sums are over all images; x is the float part, y the other one, m the mean of x
(`trtbuild.verification.parts`). So an output in pixels does not outweigh one of probabilities, while all
classes of one output have the same scale. An image whose float part is not finite says nothing of that part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.parts import WHOLE, output_parts
from trtbuild.verification.parts import PartMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.model.parts import Part

__all__ = ["Measure", "is_less", "parts_of"]


def is_less(errors: np.ndarray, before: np.ndarray, gain: float = 0.0) -> bool:
    """Return whether errors ``[images]`` are less than `before`, in sum (by a share `gain`) and in amplitude.

    The worst images dominate the sum. The sum of the amplitudes, the square roots of the errors, includes the
    other images, too; a mean of ratios would be dominated by images with a negligible error before and after.
    """
    if not np.isfinite(errors).all() or errors.sum() > before.sum() * (1.0 - gain):
        return False
    return bool(not np.isfinite(before).all() or np.sqrt(errors).sum() < np.sqrt(before).sum())


def parts_of(model: ir.Model, tensors: Sequence[str]) -> dict[str, tuple[Part, ...]]:
    """Return the parts of each of `tensors`; `WHOLE` for tensors that are not outputs."""
    known = output_parts(model)
    return {name: known.get(name, (WHOLE,)) for name in tensors}


@dataclass(frozen=True)
class Measure:
    """The outputs of the float network on some images, and the signal that each part's errors are divided by.

    Attributes:
        outputs: for each image, name -> array.
        signals: (name of an output, part) -> signal of the part.
        unknown: (index of an image, name of an output, part) where the float part is not finite.
    """

    outputs: tuple[Mapping[str, np.ndarray], ...]
    signals: Mapping[tuple[str, Part], float]
    unknown: frozenset[tuple[int, str, Part]] = frozenset()

    @classmethod
    def of(
        cls, outputs: Sequence[Mapping[str, np.ndarray]], parts: Mapping[str, Sequence[Part]]
    ) -> Measure:
        """Return the measure for the float `outputs` of some images; parts without a signal are left out."""
        signals, unknown = {}, set()
        for name, own in parts.items():
            arrays = [np.atleast_1d(found[name]) for found in outputs if found[name].size]
            fitting = all(part.fits(array) for part in own for array in arrays)
            for part in own if fitting else (WHOLE,):
                metrics = PartMetrics(part)
                for array in arrays:
                    metrics.add(array, array)
                signal = metrics.power().signal
                if np.isfinite(signal) and signal > 0:
                    signals[name, part] = signal
                for image, found in enumerate(outputs):
                    if not np.isfinite(part.of(np.atleast_1d(found[name]))).all():
                        unknown.add((image, name, part))
        return cls(tuple(outputs), signals, frozenset(unknown))

    def errors(self, others: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Return the contribution of each image to the error of each part, float64 ``[images, parts]``.

        Parts are in the order of `signals`. An entry is infinite if shapes differ or the error is not finite,
        and 0 where the float part is not finite.
        """
        found = np.zeros((len(self.outputs), len(self.signals)))
        for number, ((name, part), signal) in enumerate(self.signals.items()):
            for image, (mine, theirs) in enumerate(zip(self.outputs, others)):
                x, y = np.atleast_1d(mine[name]), np.atleast_1d(theirs[name])
                if x.shape != y.shape:
                    found[image, number] = np.inf
                    continue
                if (image, name, part) in self.unknown:
                    continue
                difference = part.of(x).astype(np.float64) - part.of(y)
                found[image, number] = float((difference**2).sum()) / signal
        return np.where(np.isfinite(found), found, np.inf)

    def seed(self, image: int, name: str, random: np.random.Generator) -> np.ndarray:
        """Return the random v for an output of an image, scaled so that errors count as in `errors`."""
        output = self.outputs[image][name]
        v = np.zeros(np.atleast_1d(output).shape, np.float32)
        for (own, part), signal in self.signals.items():
            if own == name and (image, own, part) not in self.unknown:
                block = part.of(v)
                block[...] = random.standard_normal(block.shape) / np.sqrt(signal)
        return v.reshape(output.shape).astype(output.dtype)
