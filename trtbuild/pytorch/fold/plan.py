"""Decides which norm of a graph can be folded into which layer, and why others cannot.

A norm is folded backward into the layer that makes its input, or else forward into the layer that reads its
output. Only operators that move values without changing them may be between, and every value on the
path must have exactly one reader. Norms are processed in order of execution, and a folded norm no longer
counts as an obstacle, so conv-norm-norm folds completely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trtbuild.pytorch.aten import calls, module_path, name_of, shape
from trtbuild.pytorch.fold.layers import CannotFoldError, LayerCall, arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = [
    "NORM_OPERATORS",
    "Fold",
    "Plan",
    "channel_axis_after",
    "is_channelwise_pad",
    "moves_values_only",
    "norm_calls",
    "plan_folds",
]


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
    """Return whether the operator changes no value: eval-mode dropout, copies, reshapes, transposes."""
    name = name_of(node)
    if "dropout" in name:
        return name in _NOTHING and not arguments(node).get("train", False)
    if name in ("to", "_to_copy"):
        return bool(_dtype(node) == _dtype(node.args[0]))
    return name in _NOTHING or name in _RESHAPES or name in _SWAPS or name in _PERMUTES


def is_channelwise_pad(node: Node) -> bool:
    """Return whether the operator repeats border values (reflect, replicate, circular) in each channel."""
    name = name_of(node)
    if name == "pad":
        return str(arguments(node)["mode"]) != "constant"
    return name.startswith(("reflection_pad", "replication_pad"))


def channel_axis_after(node: Node, axis: int) -> int | None:
    """Return the channel axis behind `node` if it is `axis` in front; None if channels are mixed."""
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
    """The axis of `dims` with that size and as many values before it, so the same slices of memory."""
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


NORM_OPERATORS = frozenset(("batch_norm", "instance_norm"))


@dataclass(frozen=True)
class Fold:
    """One norm call to be folded into one layer call; `side` is where the norm is."""

    norm: Node
    layer: LayerCall
    side: Literal["after", "before"]


@dataclass(frozen=True)
class Plan:
    """The folds in order of execution, and the reason for every norm that stays."""

    folds: tuple[Fold, ...]
    reasons: Mapping[Node, str]


def norm_calls(program: ExportedProgram) -> list[Node]:
    """Return the norms of the graph in order of execution."""
    return [node for node in calls(program) if name_of(node) in NORM_OPERATORS]


def plan_folds(program: ExportedProgram, barred: Mapping[Node, str]) -> Plan:
    """Plan the folds of a graph.

    Args:
        program: the graph.
        barred: norms that must stay, each with its reason.
    """
    folds: dict[Node, Fold] = {}
    reasons: dict[Node, str] = {}
    candidates = [norm for norm in norm_calls(program) if norm not in barred]
    found = -1
    while found < len(folds):  # a forward fold may free the norm before it
        found = len(folds)
        for norm in candidates:
            if norm not in folds:
                reasons.update(_try(norm, folds))
    left = {norm: reason for norm, reason in reasons.items() if norm not in folds}
    return Plan(tuple(folds.values()), {**left, **barred})


def _try(norm: Node, folds: dict[Node, Fold]) -> dict[Node, str]:
    try:
        _check_statistics(norm)
        folds[norm] = _find(norm, folds)
    except CannotFoldError as refusal:
        return {norm: str(refusal)}
    return {}


def _check_statistics(norm: Node) -> None:
    given = arguments(norm)
    if given.get("training") or given.get("use_input_stats"):
        raise CannotFoldError("it normalizes with the statistics of the batch")
    if given["running_mean"] is None or given["running_var"] is None:
        raise CannotFoldError("it has no running statistics")


def _find(norm: Node, folds: Mapping[Node, Fold]) -> Fold:
    try:
        return _search_backward(norm, folds)
    except CannotFoldError as backward:
        try:
            return _search_forward(norm, folds)
        except CannotFoldError as forward:
            raise CannotFoldError(f"{backward}; {forward}") from None


def _search_backward(norm: Node, folds: Mapping[Node, Fold]) -> Fold:
    between: list[Node] = []
    node = norm.args[0]
    while True:
        if node.op != "call_function":
            raise CannotFoldError("its input is the network's input")
        if len(node.users) != 1:
            raise CannotFoldError(
                f"its input, the output of {_title(node)}, is also used elsewhere"
            )
        layer = LayerCall.of(node)
        if layer is not None:
            _check_axis(layer.channel_axis, reversed(between))
            return Fold(norm, layer, "after")
        if node not in folds:
            if not moves_values_only(node):
                raise CannotFoldError(f"{_title(node)} before it is not a layer")
            between.append(node)
        node = node.args[0]


def _search_forward(norm: Node, folds: Mapping[Node, Fold]) -> Fold:
    if any(name_of(user).endswith("_") for user in norm.args[0].users):
        raise CannotFoldError("its input is overwritten")
    axis: int | None = 1
    node = norm
    while True:
        if len(node.users) != 1:
            raise CannotFoldError("its output goes to several places")
        user = next(iter(node.users))
        layer = LayerCall.of(user)
        if layer is not None and layer.input is node:
            break
        passes = user in folds or moves_values_only(user) or is_channelwise_pad(user)
        if user.op != "call_function" or not passes:
            raise CannotFoldError(f"{_title(user)} after it is not a layer")
        axis = axis if user in folds or axis is None else channel_axis_after(user, axis)
        node = user
    if layer.transposed:
        raise CannotFoldError("a transposed convolution after it sees no shift at its border")
    if layer.pads_with_zeros():
        raise CannotFoldError(
            f"{_title(layer.node)} after it pads with zeros, which would miss its shift"
        )
    if axis != layer.channel_axis:
        raise CannotFoldError(f"its channels are not the input channels of {_title(layer.node)}")
    return Fold(norm, layer, "before")


def _check_axis(start: int, between: Iterable[Node]) -> None:
    axis: int | None = start
    for node in between:
        axis = None if axis is None else channel_axis_after(node, axis)
    if axis != 1:
        where = "are mixed with others" if axis is None else f"lie on axis {axis}"
        raise CannotFoldError(f"it normalizes axis 1, and the layer's output channels {where}")


def _title(node: Node) -> str:
    """How a reason names a node: operator and module path."""
    if node.op == "output":
        return "the network's output"
    path = module_path(node)
    name = name_of(node).rstrip("_") or node.name
    return f"'{name}' in '{path}'" if path else f"'{name}'"
