"""What is statically known about the dims of a tensor; nothing is guessed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Dim",
    "Dims",
    "broadcast",
    "dims",
    "element_count",
    "keeps_shape",
    "rank",
    "same_dims",
    "static_dims",
]

Dim: TypeAlias = "int | str | None"
"""A size, the name of a symbolic size, or None where nothing is known."""

Dims: TypeAlias = "tuple[Dim, ...]"


def dims(value: ir.Value | None) -> Dims | None:
    """Return the dims of a tensor; None where the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(_known(dim) for dim in value.shape.dims)


def _known(dim: int | ir.SymbolicDim) -> Dim:
    """Return a dim, or None if it is unknown; some exporters write -1 for "any"."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return dim.value


def rank(value: ir.Value | None) -> int | None:
    """Return the number of dims of a tensor; None where it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def static_dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the dims of a tensor if all are known numbers, else None."""
    known = dims(value)
    if known is None:
        return None
    numbers = tuple(dim for dim in known if isinstance(dim, int))
    return numbers if len(numbers) == len(known) else None


def same_dims(first: Dims | None, second: Dims | None) -> bool:
    """Return whether two shapes are known to be equal, dim by dim. An unknown dim equals nothing."""
    if first is None or second is None or len(first) != len(second):
        return False
    return all(a is not None and a == b for a, b in zip(first, second))


def element_count(value: ir.Value | None) -> int | None:
    """Return the number of elements of a tensor; None where a dim is unknown."""
    known = static_dims(value)
    return None if known is None else math.prod(known)


def keeps_shape(tensor: Dims | None, constant: tuple[int, ...]) -> bool:
    """Return whether broadcasting with an operand of dims `constant` keeps the shape of the tensor."""
    if not constant:
        return True
    if tensor is None or len(constant) > len(tensor):
        return False
    tail = tensor[len(tensor) - len(constant) :]
    return all(size in (1, have) for size, have in zip(constant, tail))


def broadcast(first: Dims | None, second: Dims | None) -> Dims | None:
    """Return the right-aligned shape of a broadcasting operator's result; None if a rank is unknown."""
    if first is None or second is None:
        return None
    length = max(len(first), len(second))
    padded = [(1,) * (length - len(item)) + tuple(item) for item in (first, second)]
    return tuple(_broadcast_dim(a, b) for a, b in zip(*padded))


def _broadcast_dim(first: Dim, second: Dim) -> Dim:
    if first == 1:
        return second
    if second in (1, first):
        return first
    if isinstance(first, int):  # the other is symbolic: if the model is valid, it is 1 or equal
        return first
    return second if isinstance(second, int) else None
