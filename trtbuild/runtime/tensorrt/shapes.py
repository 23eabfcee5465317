"""The shapes that an optimization profile covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Profile", "Shape", "ShapeRange"]

Shape: TypeAlias = "tuple[int, ...]"


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input; kernels are tuned for `opt`. ``min <= opt <= max`` in each dimension."""

    min: Shape
    opt: Shape
    max: Shape

    def holds(self, shape: Shape) -> bool:
        """Whether a shape lies between min and max."""
        return len(shape) == len(self.min) and all(
            low <= extent <= high for low, extent, high in zip(self.min, shape, self.max)
        )

    def to_json(self) -> dict[str, list[int]]:
        """Return the range as JSON types."""
        return {"min": list(self.min), "opt": list(self.opt), "max": list(self.max)}


Profile: TypeAlias = Mapping[str, ShapeRange]
