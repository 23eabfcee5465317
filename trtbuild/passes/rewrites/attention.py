"""Attention as one operator, written out as the products and the Softmax that compilers know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from trtbuild.passes.editor import Editor

__all__ = ["WriteOutAttention"]


class WriteOutAttention(Pass):
    """Write Attention as two products with a Softmax between them, as exporters do before opset 23.

    Compilers make one kernel of those, in INT8 where all four tensors go through Q/DQ. Of the operator
    TensorRT for RTX 1.7 makes two float products, and dies of some.

    Pattern: ``Attention(Q, K, V)``, with a mask or causal.
    Conditions: Q, K and V have four axes and as many heads; their size is known, and the lengths where it is
        causal; the mask is as long as K; no past, soft cap or type of its own for Softmax; nobody reads a
        further output.
    Effect: ``MatMul(Softmax(scale Q K^T + mask), V)``.
    Source: ONNX, operator Attention, version 23.
    """

    name = "write_out_attention"
    anchors = frozenset({"Attention"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        query, key, value = node.inputs[:3]
        _require_plain(node)
        head = _head_size(query, key, value)
        _require_known_masks(node)
        scale = attribute(node, "scale", 1 / math.sqrt(head))
        number = edit.constant(_as_type_of(query, scale), near=node, hint=f"{label(node)}_scale")
        turned = edit.add("Transpose", [key], {"perm": [0, 1, 3, 2]}, before=node)
        scores = edit.add("MatMul", [query, turned], before=node)
        scores = edit.add("Mul", [scores, number], before=node, like=scores)
        for addend in _addends(node, edit):
            scores = edit.add("Add", [scores, addend], before=node, like=scores)
        weights = edit.add("Softmax", [scores], {"axis": -1}, before=node, like=scores)
        result = edit.add("MatMul", [weights, value], before=node, like=node.outputs[0])
        edit.replace(node, result, name=node.name)
        return f"is written out, with heads of {head}"


def _require_plain(node: ir.Node) -> None:
    """Raise Declined for what is more than softmax(Q K^T) V with a mask."""
    if any(input_at(node, place) is not None for place in range(4, len(node.inputs))):
        raise Declined("it has a past, or lengths of its own")
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Declined("a further output is read")
    if attribute(node, "softcap", 0.0):
        raise Declined("its scores are capped")
    if attribute(node, "softmax_precision") is not None:
        raise Declined("its Softmax has a type of its own")


def _head_size(query: ir.Value | None, key: ir.Value | None, value: ir.Value | None) -> int:
    shapes = [dims(one) for one in (query, key, value)]
    found = [shape for shape in shapes if shape is not None and len(shape) == 4]
    if len(found) != len(shapes):
        raise Declined("Q, K and V are not known to have four axes")
    if not isinstance(found[0][1], int) or len({shape[1] for shape in found}) > 1:
        raise Declined("Q, K and V are not known to have as many heads")
    head = found[0][3]
    if not isinstance(head, int):
        raise Declined("the size of a head is not known")
    if query is None or query.dtype is None:
        raise Declined("the type of Q is not known")
    return head


def _as_type_of(value: ir.Value | None, number: float) -> np.ndarray:
    assert value is not None
    assert value.dtype is not None
    return np.asarray(number, value.dtype.numpy())


def _require_known_masks(node: ir.Node) -> None:
    """Raise Declined where what hides keys from queries cannot be written out. Q and K have four axes."""
    (*_, queries, _), (*_, keys, _) = (dims(one) or () for one in node.inputs[:2])
    if attribute(node, "is_causal", 0) and not (isinstance(queries, int) and isinstance(keys, int)):
        raise Declined("it is causal, and a length is not known")
    mask = input_at(node, 3)
    if mask is None:
        return
    *_, length = dims(mask) or (None,)
    if length is None or length != keys:
        raise Declined("its mask is not known to be as long as K")


def _addends(node: ir.Node, edit: Editor) -> list[ir.Value]:
    """Return what is added to the scores: minus infinity where a query does not see a key."""
    found, mask = [], input_at(node, 3)
    far, none = (_as_type_of(node.inputs[0], number) for number in (-math.inf, 0.0))
    if attribute(node, "is_causal", 0):
        (*_, queries, _), (*_, keys, _) = (dims(one) or () for one in node.inputs[:2])
        assert isinstance(queries, int)
        assert isinstance(keys, int)
        triangle = np.triu(np.full((queries, keys), far), 1)
        found.append(edit.constant(triangle, near=node, hint=f"{label(node)}_causal"))
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        sees, hides = (
            edit.constant(one, near=node, hint=f"{label(node)}_{hint}")
            for one, hint in ((none, "sees"), (far, "hides"))
        )
        mask = edit.add("Where", [mask, sees, hides], before=node)
    return [*found, mask] if mask is not None else found
