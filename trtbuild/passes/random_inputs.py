"""Random inputs on which a network can be run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute
from trtbuild.model.graph_library import ir
from trtbuild.model.shapes import dims

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["draw_feeds"]

_PASSES_ON = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
"""Operators whose outputs hold the integers of their first inputs."""

_INDEXING = {"Gather": 0, "GatherElements": 0, "ScatterElements": 0}
"""Operators whose second operand is an index, and their default axis."""


def draw_feeds(
    model: ir.Model,
    sizes: Mapping[str, int],
    integers: tuple[int, int],
    random: np.random.Generator,
    *,
    override: bool,
) -> dict[str, NDArray[Any]] | None:
    """Return one set of inputs; None where an input is not a tensor of numbers.

    Args:
        model: the network.
        sizes: size of each symbolic dim; the key is its name, or ``input[axis]`` where it has none. A dim
            that only an initializer has may be missing: then the stored size is used.
        integers: lowest and highest value of integer inputs.
        random: source of the values.
        override: whether inputs that are also initializers get random values too.
    """
    feeds: dict[str, NDArray[Any]] = {}
    for value in model.graph.inputs:
        if value.is_initializer() and not override:
            continue
        if value.dtype is None or value.dtype == ir.DataType.STRING or dims(value) is None:
            return None
        limits = _place_limits(value) or integers
        feeds[value.name or ""] = _draw(value.dtype.numpy(), _shape(value, sizes), limits, random)
    return feeds


def _shape(value: ir.Value, sizes: Mapping[str, int]) -> list[int]:
    stored = () if value.const_value is None else value.const_value.shape.numpy()
    return [
        dim
        if isinstance(dim, int)
        else sizes.get(dim or f"{value.name}[{axis}]") or int(stored[axis])
        for axis, dim in enumerate(dims(value) or ())
    ]


def _place_limits(value: ir.Value) -> tuple[int, int] | None:
    """Lowest and highest value of an integer input that indexes tensors of known size, else None."""
    sizes, seen, waiting = [], set(), [value]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for user, index in one.uses():
            if user.op_type in _INDEXING and index == 1:
                known = dims(user.inputs[0]) or ()
                axis = attribute(user, "axis", _INDEXING[user.op_type])
                size = known[axis] if -len(known) <= axis < len(known) else None
                sizes.append(size if isinstance(size, int) else 1)
            elif user.op_type in _PASSES_ON and (index == 0 or user.op_type == "Concat"):
                waiting.extend(user.outputs)
    return (0, max(0, min(sizes) - 1)) if sizes else None


def _draw(
    dtype: np.dtype[Any], shape: list[int], integers: tuple[int, int], random: np.random.Generator
) -> NDArray[Any]:
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        low = max(integers[0], int(np.iinfo(dtype).min))
        return random.integers(low, integers[1], shape, endpoint=True).astype(dtype)
    return random.standard_normal(shape).astype(dtype)
