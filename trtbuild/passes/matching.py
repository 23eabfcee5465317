"""Queries of a graph for passes, in one place for passes of your own.

Makers and readers of a tensor, constants and their values, known dims, and the meaning of an
operator's operands in this opset.
"""

from __future__ import annotations

from trtbuild.model.attributes import (
    attribute,
    axes,
    clip_bounds,
    input_at,
    normal_axis,
    pad_widths,
    permutation,
)
from trtbuild.model.constants import array, integers, is_constant, single_value
from trtbuild.model.shapes import broadcast, dims, rank, same_dims, static_dims
from trtbuild.model.traversal import maker, sole_node
from trtbuild.passes.declined import require_private

__all__ = [
    "array",
    "attribute",
    "axes",
    "broadcast",
    "clip_bounds",
    "dims",
    "input_at",
    "integers",
    "is_constant",
    "maker",
    "normal_axis",
    "pad_widths",
    "permutation",
    "rank",
    "require_private",
    "same_dims",
    "single_value",
    "sole_node",
    "static_dims",
]
