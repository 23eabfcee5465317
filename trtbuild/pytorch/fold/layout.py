"""Where the channels lie after an operator that only moves values about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.pytorch.aten import name_of, shape
from trtbuild.pytorch.fold.layers import arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import Node

__all__ = ["channel_axis_after", "is_channelwise_pad", "moves_values_only"]

_NOTHING = frozenset(
    ("dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "alias", "clone",
     "contiguous", "detach", "detach_", "to", "_to_copy", "lift_fresh_copy")
)  # fmt: skip
_RESHAPES = frozenset(
    ("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view", "view_as")
)
_SWAPS = frozenset(("transpose", "swapaxes", "swapdims"))
_PERMUTES = frozenset(("permute", "movedim", "moveaxis"))


def moves_values_only(node: Node) -> bool:
    """Whether the operator changes no value: eval-mode dropout, copies, reshapes, transposes."""
    name = name_of(node)
    if "dropout" in name:
        return name in _NOTHING and not arguments(node).get("train", False)
    if name in ("to", "_to_copy"):
        return bool(_dtype(node) == _dtype(node.args[0]))
    return name in _NOTHING or name in _RESHAPES or name in _SWAPS or name in _PERMUTES


def is_channelwise_pad(node: Node) -> bool:
    """Whether the operator repeats border values (reflect, replicate, circular), channel by channel."""
    name = name_of(node)
    if name == "pad":
        return str(arguments(node)["mode"]) != "constant"
    return name.startswith(("reflection_pad", "replication_pad"))


def channel_axis_after(node: Node, axis: int) -> int | None:
    """The axis of the channels behind `node` when it is `axis` before; None where they are mixed."""
    before, after = shape(node.args[0]), shape(node)
    if before is None or after is None:
        return None
    name = name_of(node)
    if name in _SWAPS:
        given = [value % len(before) for value in node.args[1:3] if isinstance(value, int)]
        return {given[0]: given[1], given[1]: given[0]}.get(axis, axis)
    if name == "permute":
        order = [value % len(before) for value in arguments(node)["dims"]]
        return order.index(axis)
    if name in _PERMUTES:
        return None
    if name in _RESHAPES:
        return _axis_in(after, _product(before[:axis]), before[axis])
    return axis


def _axis_in(dims: Sequence[Any], values_before: Any, channels: Any) -> int | None:
    """The axis of `dims` of that size with as many values before it: the same slices of memory."""
    for axis, size in enumerate(dims):
        if size == channels and _same(_product(dims[:axis]), values_before):
            return axis
    return None


def _product(dims: Sequence[Any]) -> Any:
    result: Any = 1
    for dim in dims:
        result = result * dim
    return result


def _same(first: Any, second: Any) -> bool:
    difference = first - second
    return bool((difference.expand() if hasattr(difference, "expand") else difference) == 0)


def _dtype(node: Node) -> Any:
    return getattr(node.meta.get("val"), "dtype", None)
