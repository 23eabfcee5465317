"""Finds the tensors of a network that have one row per image of a batch, if no image affects another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model import input_specs
from trtbuild.model.attributes import is_random
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model, infer_node
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.opset import opset_of
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import has_bodies
from trtbuild.search.rows.known import Known
from trtbuild.search.rows.lengths import lengths_of
from trtbuild.search.rows.rules import rows_of
from trtbuild.search.rows.sizes import BATCH, MANY, Rows

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from trtbuild.model.shapes import Dims

__all__ = ["tensors_with_rows"]

# Until opset 12, Softmax joins all axes from the named one on.
_OLDEST = 13


def tensors_with_rows(model: ir.Model) -> AbstractSet[str]:
    """Return the names of the tensors whose row ``i`` is what image ``i`` gives alone, in any batch.

    Inner tensors may also have several entries per image, or none; they are not returned.

    Args:
        model: a network; nothing is returned unless all its inputs have a dynamic batch as their first axis.

    Returns:
        Empty unless it is known that no image affects another: all operators that work on images are known
        to keep them apart along axis 0 (`trtbuild.search.rows.rules`). Images may be independent although
        the result is empty.
    """
    if opset_of(model) < _OLDEST:
        return frozenset()
    copy = model.clone()
    if not _name_batch(copy):
        return frozenset()
    infer_model(copy)
    known = Known(copy.graph.inputs)
    if not all(_follow(node, known) for node in copy.graph):
        return frozenset()
    return {value.name or "" for value, rows in known.images.items() if rows == Rows(0)}


def _name_batch(model: ir.Model) -> bool:
    """Give the batch a name that no other dim has; return whether all inputs have it as first axis alone."""
    specs = input_specs(model)
    if any(spec.batch_axis != 0 or not spec.dims or isinstance(spec.batch, int) for spec in specs):
        return False
    # exporters name axes by their sizes in one example, so another axis may have the name of the batch
    if not {spec.batch for spec in specs if spec.batch}.isdisjoint(
        dim for spec in specs for dim in spec.sample_dims
    ):
        return False
    for value, spec in zip(model.graph.inputs, specs):
        value.shape = ir.Shape([BATCH, *spec.sample_dims])
    return bool(specs)


def _follow(node: ir.Node, known: Known) -> bool:
    """Write what is known about a node's outputs; return False if it may mix images."""
    made = [one for one in node.outputs if one.uses() or one.is_graph_output()]
    if not made:
        return True
    if has_bodies(node) or is_random(node) or node.domain not in ONNX_DOMAINS:
        return False
    if node.op_type == "Shape" or not known.lengths.keys().isdisjoint(node.inputs):
        lengths = lengths_of(node, known)
        if lengths is not None:
            known.lengths[made[0]] = lengths
            return True
    if all(map(known.is_fixed, node.inputs)):
        return True
    found = rows_of(node, known)
    _complete_dims(node, known)
    if found is None:
        return False
    placed = {one: rows for one, rows in zip(node.outputs, found) if one in made}
    known.images.update(placed)
    return all(_allows(dims(one), rows) for one, rows in placed.items())


def _complete_dims(node: ir.Node, known: Known) -> None:
    """Infer dims that ONNX's inference does not find because the target of a Reshape is computed."""
    made, graph = node.outputs[0], node.graph
    if dims(made) is not None or graph is None:
        return
    target = known.entries(node.inputs[1]) if node.op_type == "Reshape" else None
    if target is None:
        infer_node(node, graph.opset_imports)
        return
    lengths = (one if isinstance(one, str) or one > 0 else None for one in target)
    made.shape = ir.Shape(one if one != MANY else None for one in lengths)


def _allows(found: Dims | None, rows: Rows) -> bool:
    """Whether the inferred dims of a tensor allow that images lie along one axis, and along no other."""
    if found is None or not rows.axis < len(found) or isinstance(found[rows.axis], int):
        return False
    is_named = [dim == BATCH for dim in found]
    return not any(is_named) or (sum(is_named) == 1 and is_named[rows.axis] and rows.is_plain)
