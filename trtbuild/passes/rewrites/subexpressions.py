"""Merges equal constants and equal nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.model.attributes import is_random
from trtbuild.model.constants import tensor_bytes
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import all_graphs, has_bodies
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    from collections.abc import Hashable

    from trtbuild.passes.editor import Editor

__all__ = ["MergeEqualConstants", "MergeEqualNodes"]

_SAMPLE = 64
"""Leading elements that distinguish large constants before the whole content is compared."""


class MergeEqualConstants(Pass):
    """Keep one copy of each constant.

    Pattern: two initializers of one graph with the same type, dims and bits.
    Conditions: neither is overridable or an output; 0.0 and -0.0 differ. A fold into weights makes
        a copy for its reader, so sharing prevents no later fold.
    Effect: all readers read the first one.
    Source: ONNX Runtime ``Transformer Memcpy`` copies between devices; on one device, only copies of
        constants remain of that task.
    """

    name = "merge_equal_constants"

    def run(self, edit: Editor) -> None:
        """Merge equal initializers, graph by graph."""
        for graph in all_graphs(edit.model.graph):
            kept: dict[Hashable, list[ir.Value]] = {}
            for name, value in list(graph.initializers.items()):
                tensor = value.const_value
                if tensor is None or value.is_graph_input() or value.is_graph_output():
                    continue
                same = kept.setdefault(_sample(tensor), [])
                first = next((item for item in same if _equal(item.const_value, tensor)), None)
                if first is None:
                    same.append(value)
                    continue
                edit.note(name, "initializer", f"is '{first.name}'")
                value.replace_all_uses_with(first)
                del graph.initializers[name]


def _sample(tensor: ir.TensorProtocol) -> Hashable:
    """Return a cheap key: type, dims and some of the elements."""
    kind = (tensor.dtype, tuple(tensor.shape.numpy()))
    if tensor.dtype == ir.DataType.STRING:
        return (*kind, repr(tensor.numpy().tolist()))
    content = tensor.numpy()
    flat = content.reshape(-1) if content.flags.c_contiguous else content.flat
    return (*kind, flat[:_SAMPLE].tobytes())


def _equal(first: ir.TensorProtocol | None, second: ir.TensorProtocol) -> bool:
    if first is None:
        return False
    if first is second:
        return True
    if second.size <= _SAMPLE or second.dtype == ir.DataType.STRING:
        return True  # the sample was the whole content
    return bool(first.tobytes() == second.tobytes())


class MergeEqualNodes(Pass):
    """Merge nodes that compute the same.

    Pattern: two nodes of one graph with the same operator, attributes and operands.
    Conditions: not random, no training Dropout, no bodies; two graph outputs need two
        tensors.
    Effect: readers of the second node read the first one; chains merge level by level.
    Source: ONNX Runtime ``Common Subexpression Elimination``.
    """

    name = "merge_equal_nodes"

    def run(self, edit: Editor) -> None:
        """Walk each graph in order and look for an equal earlier node."""
        for graph in all_graphs(edit.model.graph):
            seen: dict[Hashable, ir.Node] = {}
            for node in graph:
                key = _key(node)
                if key is None:
                    continue
                first = seen.setdefault(key, node)
                if first is not node:
                    self._merge(first, node, edit)

    def _merge(self, first: ir.Node, second: ir.Node, edit: Editor) -> None:
        try:
            for old, new in zip(second.outputs, first.outputs):
                edit.require_bypass(second, old, new)
        except Declined as verdict:
            edit.decline(second, str(verdict))
            return
        edit.report(second, f"is '{first.outputs[0].name}'")
        for old, new in zip(second.outputs, first.outputs):
            edit.forward(old, new)
        edit.drop(second)


def _key(node: ir.Node) -> Hashable | None:
    if is_random(node) or node.domain != "" or has_bodies(node):
        return None
    try:
        attributes = tuple(
            (name, _attribute_key(node.attributes[name])) for name in sorted(node.attributes)
        )
    except TypeError:
        return None
    outputs = tuple(bool(output.name) for output in node.outputs)
    return (node.op_type, attributes, tuple(map(id, node.inputs)), outputs)


def _attribute_key(attribute: ir.Attr) -> Hashable:
    if attribute.is_ref():
        raise TypeError
    value: Any = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        tensor: ir.TensorProtocol = value
        return (tensor.dtype, tuple(tensor.shape.numpy()), tensor_bytes(tensor))
    key: Hashable = (attribute.type, repr(value))
    return key
