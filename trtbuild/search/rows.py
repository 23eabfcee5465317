"""Whether images of a batch affect each other: known to be independent, seen to depend, or undecided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, axes, is_inference_batch_norm, normal_axis
from trtbuild.model.constants import integers
from trtbuild.model.operators import RECURRENT
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import has_bodies

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx_ir as ir

__all__ = ["batch_of", "rows_are_apart", "rows_meet"]

# Operators that may mix rows, or treat them differently, even if dims do not show it.
_ACROSS_ROWS = RECURRENT | {
    "CumProd", "CumSum", "DFT", "Einsum", "EyeLike", "GatherND", "MaxRoiPool", "MeanVarianceNormalization",
    "ReverseSequence", "RoiAlign", "ScatterND", "Trilu", "Unique",
}  # fmt: skip
# Operators that keep the dims while they work along an axis -> the default axis.
_AXES = {
    "Gather": 0, "GatherElements": 0, "Hardmax": -1, "LayerNormalization": -1, "LogSoftmax": -1,
    "LpNormalization": -1, "RMSNormalization": -1, "ScatterElements": 0, "Softmax": -1,
}  # fmt: skip
# Operators that read their axis from a constant input.
_RUNNING = frozenset({"CumProd", "CumSum"})
# Operators that use inputs only as lengths of their result -> index of the first such input.
_LENGTHS = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Resize": 1, "Tile": 1, "Upsample": 1}


def batch_of(model: ir.Model) -> str:
    """Return the name of the first axis if all inputs share it; else an empty string."""
    first = {(dims(value) or (None,))[0] for value in model.graph.inputs}
    name = next(iter(first)) if len(first) == 1 else None
    return name if isinstance(name, str) else ""


def rows_are_apart(model: ir.Model) -> bool:
    """Return whether it is known that images of a batch do not affect each other.

    It is known if all tensors computed from an input have the batch as their first axis, and nowhere else,
    and no node works along this axis or computes with its size. This detects a mean over the batch, a
    product of two images and a running sum.

    Args:
        model: a network with inferred dims.
    """
    batch = batch_of(model)
    rows = set(model.graph.inputs)
    if not batch or any(not _has_rows(value, batch) for value in rows):
        return False
    # a tensor made of the batch size alone has the batch as its first axis, too, and is not in `rows`
    if rows_meet(model):
        return False
    for node in model.graph:
        if has_bodies(node):
            return False
        if (node.domain, node.op_type) == ("", "Shape") or rows.isdisjoint(node.inputs):
            continue
        made = {one for one in node.outputs if one.uses() or one.is_graph_output()}
        if _works_across(node, rows) or any(not _has_rows(one, batch) for one in made):
            return False
        rows |= made
    return True


def _has_rows(value: ir.Value, batch: str) -> bool:
    known = dims(value) or (None,)
    return known[0] == batch and batch not in known[1:]


def _works_across(node: ir.Node, rows: Collection[ir.Value | None]) -> bool:
    if node.domain or node.op_type in _ACROSS_ROWS or _is_training(node):
        return True
    along = _AXES.get(node.op_type)
    if along is None or node.inputs[0] not in rows:
        return False  # a table in which rows are looked up has no rows itself
    known = dims(node.inputs[0])
    return known is None or normal_axis(int(attribute(node, "axis", along)), len(known)) == 0


def _is_training(node: ir.Node) -> bool:
    return node.op_type == "BatchNormalization" and not is_inference_batch_norm(node)


def rows_meet(model: ir.Model) -> bool:
    """Return whether images of a batch are seen to affect each other.

    This is seen if a node sums, normalizes, looks up or counts along an axis with the batch's name, if a
    tensor has an entry for each pair of images, or if a node computes with the size of the batch. After a
    tensor of unknown dims nothing is seen.

    Args:
        model: a network with inferred dims.
    """
    fronts = [known[0] for known in map(dims, model.graph.inputs) if known]
    batches = frozenset(name for name in fronts if isinstance(name, str))
    return any(_meets(node, batches) for node in model.graph) or _is_size_used(model, batches)


def _meets(node: ir.Node, batches: frozenset[str]) -> bool:
    """Whether a node works along a batch axis, or has an output with an entry for each pair of images."""
    if any(sum(dim in batches for dim in dims(one) or ()) > 1 for one in node.outputs):
        return True
    if node.domain:
        return False
    return any(
        (known := dims(value)) is not None
        and any(known[axis] in batches for axis in _worked_along(node, place, len(known)))
        for place, value in enumerate(node.inputs)
    )


def _worked_along(node: ir.Node, place: int, rank: int) -> Sequence[int]:
    """The axes of an operand that a node works along; none if the graph does not tell."""
    op, found = node.op_type, tuple[int, ...]()
    if op in ("MatMul", "Gemm"):
        is_turned = op == "Gemm" and attribute(node, "transB" if place else "transA", 0)
        found = (-2 if (place == 1) != bool(is_turned) else -1,)
        found = found if place < 2 and rank > 1 else ()
    elif place > 0:
        found = ()
    elif op in _AXES or op in ("ArgMax", "ArgMin", "TopK"):
        found = (int(attribute(node, "axis", _AXES.get(op, -1 if op == "TopK" else 0))),)
    elif op in _RUNNING:
        found = integers(node.inputs[1]) or ()
    elif op.startswith("Reduce"):
        is_idle = attribute(node, "noop_with_empty_axes", 0)
        found = axes(node) or (() if is_idle or axes(node) is None else tuple(range(rank)))
    elif op == "MeanVarianceNormalization":
        found = tuple(attribute(node, "axes", (0, 2, 3)))
    elif (op in RECURRENT and not attribute(node, "layout", 0)) or _is_training(node):
        found = (0,)
    elif op in ("NonZero", "Unique"):
        found = tuple(range(rank))
    return [axis for axis in found if -rank <= axis < rank]


def _is_size_used(model: ir.Model, batches: frozenset[str]) -> bool:
    """Whether a node computes with the number of images other than as a length of a tensor."""
    sizes: set[ir.Value | None] = set()
    shapes: dict[ir.Value | None, Sequence[int | str | None]] = {}
    for node in model.graph:
        made = [one for one in node.outputs if one.uses() or one.is_graph_output()]
        if node.op_type in ("Shape", "Size") and not node.domain:
            shapes[node.outputs[0]] = measured = _measured(node)
            if None in measured or not batches.isdisjoint(measured):
                sizes.update(made)
        elif not sizes.isdisjoint(node.inputs) and not _are_lengths(node, sizes):
            picked = _picked(node, shapes.get(node.inputs[0]))
            if picked is not None and None not in picked and batches.isdisjoint(picked):
                continue
            if not _is_count(node, sizes, batches):
                return True
            sizes.update(made)
    return any(value in sizes for value in model.graph.outputs)


def _measured(node: ir.Node) -> Sequence[int | str | None]:
    """The dims that a Shape or Size returns; (None,) if they are not known."""
    known = dims(node.inputs[0])
    if known is None:
        return (None,)
    end = attribute(node, "end")
    return known[attribute(node, "start", 0) : len(known) if end is None else end]


def _picked(
    node: ir.Node, shape: Sequence[int | str | None] | None
) -> Sequence[int | str | None] | None:
    """The dims that a Gather or Slice takes from a shape; None for other nodes, or if they are not known."""
    if shape is None or None in shape or node.op_type not in ("Gather", "Slice"):
        return None
    given = [integers(value) for value in node.inputs[1:]]
    if any(one is None for one in given):
        return None
    if node.op_type == "Gather":
        return [shape[place] for place in given[0] or ()]
    step = (given[3] if len(given) > 3 else None) or (1,)
    starts, ends = given[0] or (0,), given[1] or (0,)
    return shape[starts[0] : ends[0] : step[0]]


def _are_lengths(node: ir.Node, sizes: Collection[ir.Value | None]) -> bool:
    """Whether a node uses sizes only as lengths of its result."""
    first = _LENGTHS.get(node.op_type) if not node.domain else None
    return first is not None and not any(value in sizes for value in node.inputs[:first])


def _is_count(node: ir.Node, sizes: Collection[ir.Value | None], batches: frozenset[str]) -> bool:
    """Whether a node computes only integers or booleans from sizes, without values of images."""
    whole = all(
        one.dtype is not None and not one.dtype.is_floating_point()
        for one in node.outputs
        if one.uses() or one.is_graph_output()
    )
    others = (dims(value) or () for value in node.inputs if value not in sizes)
    return whole and all(batches.isdisjoint(known) for known in others)
