"""Random inputs for a network whose sizes and index ranges nobody has told us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from trtbuild.model.shapes import dims

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Binding", "bindings", "draw_feeds"]

_SIZES = ((1, 1), (3, 5), (2, 8), (2, 32), (1, 64), (1, 224))
"""Size of a leading symbolic dim, and of all others; later pairs: for networks that need room."""

_INTEGERS = ((-100, 100), (0, 8), (0, 1), (1, 1))
"""Ranges for integer inputs; later ones are for networks that use them as places or counts."""


@dataclass(frozen=True)
class Binding:
    """A choice of what the network leaves open.

    Attributes:
        sizes: size of each symbolic dim; the key is its name, or ``input[axis]`` where it has none.
        integers: lowest and highest value of integer inputs.
    """

    sizes: Mapping[str, int]
    integers: tuple[int, int]

    @property
    def text(self) -> str:
        """The sizes, for a message."""
        return ", ".join(f"{name} = {size}" for name, size in self.sizes.items()) or "its own dims"


def bindings(model: ir.Model, given: Sequence[Mapping[str, int]]) -> Iterator[list[Binding]]:
    """Return groups of choices; the first choice of a group that the network takes is enough.

    Args:
        model: the network.
        given: sizes of symbolic dims that the user knows to be right; replaces our guesses.
    """
    open_dims = _open_dims(model)
    has_integers = any(_is_integer(value) for value in _fed(model))
    ranges = _INTEGERS if has_integers else _INTEGERS[:1]
    if given:
        choices = [{key: dict(sizes).get(key, 1) for key in open_dims} for sizes in given]
    elif open_dims:
        choices = [
            {key: lead if leading else other for key, leading in open_dims.items()}
            for lead, other in _SIZES
        ]
    else:
        choices = [{}]
    for sizes in choices:
        yield [Binding(sizes, limits) for limits in ranges]


def _fed(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if not value.is_initializer()]


def _open_dims(model: ir.Model) -> dict[str, bool]:
    """Return symbolic dim -> whether it leads an input."""
    answer: dict[str, bool] = {}
    for value in _fed(model):
        for axis, dim in enumerate(dims(value) or ()):
            if not isinstance(dim, int):
                key = dim or f"{value.name}[{axis}]"
                answer[key] = answer.get(key, False) or axis == 0
    return answer


def _is_integer(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()


def draw_feeds(
    model: ir.Model, binding: Binding, random: np.random.Generator, *, override: bool
) -> dict[str, NDArray[Any]] | None:
    """Draw one set of inputs; None where an input is no tensor of numbers.

    Args:
        model: the network.
        binding: sizes and ranges.
        random: source of the values.
        override: whether initialisers that are inputs are given other values too.
    """
    feeds: dict[str, NDArray[Any]] = {}
    for value in model.graph.inputs:
        if value.is_initializer() and not override:
            continue
        if value.dtype is None or value.dtype == ir.DataType.STRING or dims(value) is None:
            return None
        name = value.name or ""
        shape = [
            dim if isinstance(dim, int) else binding.sizes[dim or f"{name}[{axis}]"]
            for axis, dim in enumerate(dims(value) or ())
        ]
        feeds[name] = _draw(value.dtype.numpy(), shape, binding.integers, random)
    return feeds


def _draw(
    dtype: np.dtype[Any], shape: list[int], integers: tuple[int, int], random: np.random.Generator
) -> NDArray[Any]:
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        low = max(integers[0], int(np.iinfo(dtype).min))
        return random.integers(low, integers[1], shape, endpoint=True).astype(dtype)
    return random.standard_normal(shape).astype(dtype)
