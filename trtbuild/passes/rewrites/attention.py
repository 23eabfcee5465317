"""Writes Attention as the products and the Softmax that compilers know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import array, is_constant
from trtbuild.model.graph_library import ir
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from trtbuild.passes.editor import Editor

__all__ = ["WriteOutAttention"]

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""The types for which compilers have kernels."""


class WriteOutAttention(Pass):
    """Write Attention as two products with a Softmax between them, as exporters do before opset 23.

    Compilers fuse these into one kernel, in INT8 if all four tensors go through Q/DQ. For the operator
    itself, TensorRT for RTX 1.7 makes two float products, builds most forms in FP16 only, and crashes on
    some.

    Pattern: ``Attention(Q, K, V)``, with a mask or causal.
    Conditions: Q, K and V have the same type of 32 or 16 bits, and four axes, or three with the heads side
        by side in the last; the size of a head is known; the mask is boolean or of that type, and as long
        as K; no past, window, soft cap or type set for Softmax; no further output is read.
    Effect: ``MatMul(Softmax(scale Q K^T + mask), V)``, in FP16 with ``(scale Q) K^T``, which does not
        overflow; heads of K and V that several heads of Q share are repeated; the causal mask is computed at
        run time if a length is unknown. A query that sees no key gets zeros, after the products, so that
        compilers still recognize the products.
    Source: ONNX, operator Attention, version 23.
    """

    name = "write_out_attention"
    anchors = frozenset({"Attention"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        _require_plain(node)
        heads = _heads(node)
        _require_known_mask(node)
        query, key, value = (_by_head(node, place, heads, edit) for place in range(3))
        scale = attribute(node, "scale", 1 / math.sqrt(heads.sizes[0]))
        number = edit.constant(_as_type_of(query, scale), near=node, hint=f"{label(node)}_scale")
        turned = edit.add("Transpose", [key], {"perm": [0, 1, 3, 2]}, before=node)
        if query.dtype == ir.DataType.FLOAT16:
            scaled = edit.add("Mul", [query, number], before=node, like=query)
            scores = edit.add("MatMul", [scaled, turned], before=node)
        else:
            scores = edit.add("MatMul", [query, turned], before=node)
            scores = edit.add("Mul", [scores, number], before=node, like=scores)
        addends = _addends(node, query, key, edit)
        for addend in addends:
            scores = edit.add("Add", [scores, addend], before=node, like=scores)
        weights = edit.add("Softmax", [scores], {"axis": -1}, before=node, like=scores)
        product = edit.add("MatMul", [weights, value], before=node)
        result = product
        if _may_hide_all(node, query):
            result = _zero_where_all_is_hidden(node, product, addends, edit)
        if heads.side_by_side:
            turned = edit.add("Transpose", [result], {"perm": [0, 2, 1, 3]}, before=node)
            result = _reshaped(turned, (0, 0, -1), node, edit)
        maker, name = product.producer(), node.name
        if result is not product and maker is not None:
            maker.name, name = node.name, None
        edit.replace(node, result, name=name)
        return f"is written out, with heads of {heads.sizes[0]}"


@dataclass(frozen=True)
class _Heads:
    """The heads of Q, K and V.

    Attributes:
        counts: how many heads each has; several heads of Q may share one of K and V.
        sizes: size of one head of each.
        side_by_side: whether the heads share the last of three axes instead of having their own axis.
    """

    counts: tuple[int, int, int]
    sizes: tuple[int, int, int]
    side_by_side: bool


def _require_plain(node: ir.Node) -> None:
    """Raise Declined for anything but softmax(Q K^T) V with a mask."""
    if any(input_at(node, place) is not None for place in range(4, len(node.inputs))):
        raise Declined("it has a past, or lengths of its own")
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Declined("a further output is read")
    if attribute(node, "softcap", 0.0):
        raise Declined("its scores are capped")
    if attribute(node, "softmax_precision") is not None:
        raise Declined("its Softmax has a type of its own")
    if any(attribute(node, side, -1) >= 0 for side in ("left_window_size", "right_window_size")):
        raise Declined("its queries see a window of keys")
    query, mask = node.inputs[0], input_at(node, 3)
    if query is None or query.dtype not in _FLOATS:
        raise Declined("Q is not known to be of a float type of 32 or 16 bits")
    added = [*node.inputs[1:3], *([] if mask is None or mask.dtype == ir.DataType.BOOL else [mask])]
    if any(value is None or value.dtype != query.dtype for value in added):
        raise Declined("K, V or the mask is of another type than Q")


def _heads(node: ir.Node) -> _Heads:
    shapes = [dims(one) or () for one in node.inputs[:3]]
    ranks = {len(shape) for shape in shapes}
    if ranks not in ({3}, {4}):
        raise Declined("Q, K and V are not known to have three axes, or four")
    counts, sizes = [shape[1] for shape in shapes], [shape[-1] for shape in shapes]
    if ranks == {3}:
        own, shared = attribute(node, "q_num_heads", 0), attribute(node, "kv_num_heads", 0)
        counts = [own, shared, shared]
        sizes = [
            size // count if isinstance(size, int) and count else None
            for size, count in zip(sizes, (own, shared, shared), strict=True)
        ]
    match (counts, sizes):
        case [int() as own, int() as shared, int() as other], [int() as q, int() as k, int() as v]:
            if not shared or shared != other or own % shared:
                raise Declined(f"{own} heads of Q do not share {shared} of K and {other} of V")
            return _Heads((own, shared, other), (q, k, v), ranks == {3})
    raise Declined("the number of heads, or their size, is not known")


def _by_head(node: ir.Node, place: int, heads: _Heads, edit: Editor) -> ir.Value:
    """Return Q, K or V with four axes and as many heads as Q has."""
    value = node.inputs[place]
    assert value is not None
    count, size, wanted = heads.counts[place], heads.sizes[place], heads.counts[0]
    if heads.side_by_side:
        value = _reshaped(value, (0, 0, count, size), node, edit)
        value = edit.add("Transpose", [value], {"perm": [0, 2, 1, 3]}, before=node)
    if count != wanted:
        value = edit.add_with_axes("Unsqueeze", value, [2], before=node)
        times = _integers((1, 1, wanted // count, 1, 1), node, edit)
        value = edit.add("Expand", [value, times], before=node)
        value = _reshaped(value, (0, wanted, -1, size), node, edit)
    return value


def _reshaped(value: ir.Value, shape: tuple[int, ...], node: ir.Node, edit: Editor) -> ir.Value:
    return edit.add("Reshape", [value, _integers(shape, node, edit)], before=node)


def _integers(numbers: tuple[int, ...], node: ir.Node, edit: Editor) -> ir.Value:
    return edit.constant(np.array(numbers, np.int64), near=node, hint=f"{label(node)}_sizes")


def _as_type_of(value: ir.Value | None, number: float) -> np.ndarray:
    assert value is not None
    assert value.dtype is not None
    return np.asarray(number, value.dtype.numpy())


def _require_known_mask(node: ir.Node) -> None:
    """Raise Declined unless the mask is known to be as long as K, which has three or four axes."""
    mask = input_at(node, 3)
    if mask is None:
        return
    *_, keys, _ = dims(node.inputs[1]) or (None, None)
    *_, length = dims(mask) or (None,)
    if length is None or length != keys:
        raise Declined("its mask is not known to be as long as K")


def _addends(node: ir.Node, query: ir.Value, key: ir.Value, edit: Editor) -> list[ir.Value]:
    """Return the masks to add to the scores: (almost) minus infinity where a query does not see a key."""
    found, mask = [], input_at(node, 3)
    if attribute(node, "is_causal", 0):
        found.append(_unseen(node, (query, key), _as_type_of(query, -math.inf), edit))
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        # the least finite number: a query that sees nothing gives no NaN
        sees, hides = (
            edit.constant(one, near=node, hint=f"{label(node)}_{hint}")
            for one, hint in ((_as_type_of(query, 0.0), "sees"), (_least(query), "hides"))
        )
        mask = edit.add("Where", [mask, sees, hides], before=node)
    return [*found, mask] if mask is not None else found


def _unseen(
    node: ir.Node, given: tuple[ir.Value, ir.Value], far: np.ndarray, edit: Editor
) -> ir.Value:
    """Return the causal mask, queries by keys: minus infinity where a key is behind its query, else zero."""
    hint = f"{label(node)}_causal"
    match [(dims(one) or (None, None))[-2] for one in given]:
        case [int() as queries, int() as keys]:
            triangle = np.triu(np.full((queries, keys), far), 1)
            return edit.constant(triangle, near=node, hint=hint)
    # from Q and K, not from the scores: compilers recognize attention only if nothing else reads the scores
    lengths = [edit.add("Shape", [one], {"start": 2, "end": 3}, before=node) for one in given]
    shape = edit.add("Concat", lengths, {"axis": 0}, before=node)
    value = ir.Tensor(far.reshape(1), name=hint)
    everywhere = edit.add("ConstantOfShape", [shape], {"value": value}, before=node)
    first = edit.constant(np.array(1, np.int64), near=node, hint=f"{hint}_first")
    return edit.add("Trilu", [everywhere, first], {"upper": 1}, before=node)


def _least(value: ir.Value) -> np.ndarray:
    """The least finite number of the type of `value`."""
    assert value.dtype is not None
    return np.asarray(value.dtype.min, value.dtype.numpy())


def _may_hide_all(node: ir.Node, query: ir.Value) -> bool:
    """Whether some query may see no key, because of the mask or since the mask is unknown."""
    mask = input_at(node, 3)
    if mask is None:
        return False
    content = array(mask) if is_constant(mask) else None
    if content is None:
        return True
    seen = content if content.dtype.kind == "b" else content > -math.inf
    if attribute(node, "is_causal", 0):
        *_, queries, _ = dims(query) or (None, None)
        if not isinstance(queries, int):
            return True
        seen = seen & np.tri(queries, seen.shape[-1], dtype=bool)
    return not seen.any(-1).all()


def _zero_where_all_is_hidden(
    node: ir.Node, product: ir.Value, addends: list[ir.Value], edit: Editor
) -> ir.Value:
    """Return `product` with zeros for the queries that see no key, as the ONNX standard says."""
    total, *others = addends
    for other in others:
        total = edit.add("Add", [total, other], before=node)
    mask = input_at(node, 3)
    assert mask is not None
    hides = _least(product) if mask.dtype == ir.DataType.BOOL else _as_type_of(product, -math.inf)
    limit, zero = (
        edit.constant(one, near=node, hint=f"{label(node)}_{hint}")
        for one, hint in ((hides, "nothing"), (_as_type_of(product, 0.0), "zero"))
    )
    largest = edit.add("ReduceMax", [total, _integers((-1,), node, edit)], before=node)
    blind = edit.add("LessOrEqual", [largest, limit], before=node)
    return edit.add("Where", [blind, zero, product], before=node, like=product)
