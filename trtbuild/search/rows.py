"""Whether the images of a batch have a say in each other: known to be apart, seen to meet, or neither."""

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

# What may tell rows apart, or bring them together, whatever its dims look like.
_ACROSS_ROWS = RECURRENT | {
    "CumProd", "CumSum", "DFT", "Einsum", "EyeLike", "GatherND", "MaxRoiPool", "MeanVarianceNormalization",
    "ReverseSequence", "RoiAlign", "ScatterND", "Trilu", "Unique",
}  # fmt: skip
# Operators that keep the dims while they work along an axis -> which, where that is not written.
_AXES = {
    "Gather": 0, "GatherElements": 0, "Hardmax": -1, "LayerNormalization": -1, "LogSoftmax": -1,
    "LpNormalization": -1, "RMSNormalization": -1, "ScatterElements": 0, "Softmax": -1,
}  # fmt: skip
# Operators that take one axis from a constant.
_RUNNING = frozenset({"CumProd", "CumSum"})
# Operators that take lengths, and compute nothing with them -> from which input on.
_LENGTHS = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Resize": 1, "Tile": 1, "Upsample": 1}


def batch_of(model: ir.Model) -> str:
    """Return the name of the first axis that all inputs have; empty where there is no such name."""
    first = {(dims(value) or (None,))[0] for value in model.graph.inputs}
    name = next(iter(first)) if len(first) == 1 else None
    return name if isinstance(name, str) else ""


def rows_are_apart(model: ir.Model) -> bool:
    """Return whether it is known that no image of a batch has a say in what is computed of another.

    Known where all that comes from an input has the batch in front, and there alone, and nothing works along
    it or computes with its size: so a mean over the batch, a product of two images and a running sum are
    found.

    Args:
        model: its dims have been inferred.
    """
    batch = batch_of(model)
    rows = set(model.graph.inputs)
    if not batch or any(not _has_rows(value, batch) for value in rows):
        return False
    if _is_size_used(model, frozenset({batch})):
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
        return False  # a table that rows are looked up in has none itself
    known = dims(node.inputs[0])
    return known is None or normal_axis(int(attribute(node, "axis", along)), len(known)) == 0


def _is_training(node: ir.Node) -> bool:
    return node.op_type == "BatchNormalization" and not is_inference_batch_norm(node)


def rows_meet(model: ir.Model) -> bool:
    """Return whether an image of a batch is seen to have a say in what is computed of another.

    Seen where an axis that has the batch's name is summed, normalized, looked up or counted along, where a
    tensor has an entry for each pair of images, and where the size of the batch is computed with. Behind
    a tensor whose dims are not known nothing is seen.

    Args:
        model: its dims have been inferred.
    """
    fronts = [known[0] for known in map(dims, model.graph.inputs) if known]
    batches = frozenset(name for name in fronts if isinstance(name, str))
    return any(_meets(node, batches) for node in model.graph) or _is_size_used(model, batches)


def _meets(node: ir.Node, batches: frozenset[str]) -> bool:
    """Whether a node works along an axis of a batch, or makes one of pairs."""
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
    """The axes of an operand that a node works along; none where the graph does not tell."""
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
    """Whether something computes with the number of images, which is more than a length of tensors then."""
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
    """The dims that a Shape or Size gives; (None,) where they are not known."""
    known = dims(node.inputs[0])
    if known is None:
        return (None,)
    end = attribute(node, "end")
    return known[attribute(node, "start", 0) : len(known) if end is None else end]


def _picked(
    node: ir.Node, shape: Sequence[int | str | None] | None
) -> Sequence[int | str | None] | None:
    """The dims that a Gather or Slice takes out of a shape; None where it is none, or not known."""
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
    """Whether a node takes sizes for lengths of its result alone."""
    first = _LENGTHS.get(node.op_type) if not node.domain else None
    return first is not None and not any(value in sizes for value in node.inputs[:first])


def _is_count(node: ir.Node, sizes: Collection[ir.Value | None], batches: frozenset[str]) -> bool:
    """Whether what a node makes of sizes is one again: whole numbers, or truths, and nothing of an image."""
    whole = all(
        one.dtype is not None and not one.dtype.is_floating_point()
        for one in node.outputs
        if one.uses() or one.is_graph_output()
    )
    others = (dims(value) or () for value in node.inputs if value not in sizes)
    return whole and all(batches.isdisjoint(known) for known in others)
