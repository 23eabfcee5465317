"""Follows lengths, which a Shape gives, through the nodes that pick and join them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, axes, input_at
from trtbuild.model.constants import integers
from trtbuild.search.rows.sizes import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from trtbuild.search.rows.known import Known
    from trtbuild.search.rows.sizes import Entry

__all__ = ["lengths_of"]


def lengths_of(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    """Return the lengths that a node gives; None if it does something else with its operands."""
    rule = _RULES.get(node.op_type)
    return None if rule is None else rule(node, known)


def _shape(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    value = node.inputs[0]
    if value is None or known.rows(value) is None:
        return None
    return tuple(known.dims(value)[attribute(node, "start", 0) : attribute(node, "end")])


def _same(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    made = node.outputs[0].dtype
    return known.entries(node.inputs[0]) if made is not None and made.is_integer() else None


def _between_scalar_and_vector(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    found = known.entries(node.inputs[0])
    is_one = found is not None and len(found) == 1 and axes(node) in ((), (0,), (-1,))
    return found if is_one else None


def _gathered(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    found, places = known.entries(node.inputs[0]), integers(node.inputs[1])
    if (
        found is None
        or places is None
        or any(not -len(found) <= one < len(found) for one in places)
    ):
        return None
    return tuple(found[place] for place in places)


def _sliced(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    found = known.entries(node.inputs[0])
    starts, ends = integers(input_at(node, 1)), integers(input_at(node, 2))
    steps = (1,) if input_at(node, 4) is None else integers(input_at(node, 4))
    if found is None or not starts or not ends or not steps:
        return None
    return found[starts[0] : ends[0] : steps[0]]


def _joined(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    parts = [known.entries(value) for value in node.inputs]
    return None if None in parts else tuple(one for part in parts if part for one in part)


def _are_minus_one(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    """Which lengths are -1; exporters replace those before an Expand. No length of a Shape is -1."""
    found, others = known.entries(node.inputs[0]), integers(node.inputs[1])
    if found is None or others is None or set(others) != {-1}:
        return None
    is_known = not any(isinstance(one, str) and one.startswith(UNKNOWN) for one in found)
    return tuple(int(one == -1) for one in found) if is_known else None


def _chosen(node: ir.Node, known: Known) -> tuple[Entry, ...] | None:
    given = [known.entries(value) for value in node.inputs]
    if None in given or not set(given[0] or ()) <= {0, 1}:
        return None
    parts = [tuple(one or ()) for one in given]
    count = max(map(len, parts))
    if any(len(one) not in (1, count) for one in parts):
        return None
    whole = (one if len(one) == count else one * count for one in parts)
    return tuple(yes if is_so else no for is_so, yes, no in zip(*whole))


_RULES: Mapping[str, Callable[[ir.Node, Known], tuple[Entry, ...] | None]] = {
    "Cast": _same,
    "Concat": _joined,
    "Equal": _are_minus_one,
    "Gather": _gathered,
    "Identity": _same,
    "Shape": _shape,
    "Slice": _sliced,
    "Squeeze": _between_scalar_and_vector,
    "Unsqueeze": _between_scalar_and_vector,
    "Where": _chosen,
}
