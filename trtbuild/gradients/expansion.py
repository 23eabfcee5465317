"""Expands operators that ONNX defines by others: LayerNormalization and similar, Gelu, Attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from trtbuild.gradients.writer import NoRuleError
from trtbuild.model.constants import constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.opset import MODERN_IR

if TYPE_CHECKING:
    from trtbuild.gradients.writer import Writer

__all__ = ["Expanded", "expand", "is_defined"]

# Elements. Constants up to this size may decide the form of the definition: axes, numbers of groups.
_SMALL = 64


class Expanded:
    """The definition of a node, computed beside it from the same operands.

    Attributes:
        nodes: the definition's nodes, appended to the graph in order.
        outputs: their results, in the order of the node's outputs.
    """

    def __init__(self, nodes: list[ir.Node], outputs: list[ir.Value]) -> None:
        self.nodes = nodes
        self.outputs = outputs


def is_defined(op_type: str, opset: int) -> bool:
    """Return whether ONNX defines the operator of its domain by other operators."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def expand(node: ir.Node, write: Writer) -> Expanded:
    """Append the definition of `node` to the graph.

    Raises:
        NoRuleError: ONNX does not define the operator by others, or not in this form.
    """
    proto = _inlined(_alone(node, write))
    if proto is None:
        raise NoRuleError("")
    graph = ir.from_proto(proto).graph
    operands = {value.name: value for value in node.inputs if value is not None}
    for value in [*graph.inputs, *graph.initializers.values()]:
        value.replace_all_uses_with(operands[value.name], replace_graph_outputs=True)
    outputs = list(graph.outputs)
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    for one in nodes:
        write.append(one)
    return Expanded(nodes, outputs)


def _alone(node: ir.Node, write: Writer) -> onnx.ModelProto:
    """A network that consists of this node only."""
    copies: dict[ir.Value, ir.Value] = {}
    for value in node.inputs:
        if value is None or value in copies:
            continue
        copies[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
        tensor = constant_tensor(value)
        if tensor is not None and tensor.size <= _SMALL:
            copies[value].const_value = ir.tensor(tensor.numpy(), name=value.name)
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else copies[value] for value in node.inputs],
        node.attributes.values(),
        num_outputs=len(node.outputs),
    )
    for old, new in zip(node.outputs, copy.outputs):
        new.name, new.type, new.shape = old.name, old.type, old.shape
    known = [value for value in copies.values() if value.const_value is not None]
    graph = ir.Graph(
        [value for value in copies.values() if value.const_value is None],
        [value for value in copy.outputs if value.name],
        nodes=[copy],
        initializers=known,
        opset_imports={"": write.opset},
        name="definition",
    )
    return ir.to_proto(ir.Model(graph, ir_version=MODERN_IR))


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    operator = proto.graph.node[0].op_type
    try:
        inlined = onnx.inliner.inline_selected_functions(
            proto, [("", operator)], inline_schema_functions=True
        )
        if any(node.op_type == operator for node in inlined.graph.node):
            return None
        return onnx.shape_inference.infer_shapes(inlined, data_prop=True)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        return None
