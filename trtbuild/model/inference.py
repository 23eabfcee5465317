"""Shapes and types of all tensors, by ONNX's own inference, from the inputs and weights alone.

The dims that a file records for inner tensors are dropped first: they often date from before an input became
symbolic, and no rewrite may rely on them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import onnx

from trtbuild.model.constants import constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import all_nodes, bodies, has_bodies
from trtbuild.model.writing import without_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["infer_model", "infer_node", "with_output_sizes"]

_SMALL = 64
"""Elements. Constants up to this size (shapes, axes, bounds) may decide the shape of a result."""

_LIKE_INPUT = frozenset({"GroupNormalization"})
"""Operators that ONNX's inference does not know in any opset; the result is like the first input."""

_type_of = ir.serde.deserialize_type_proto_for_type
_shape_of = ir.serde.deserialize_type_proto_for_shape

_log = logging.getLogger(__name__)


def infer_model(model: ir.Model) -> None:
    """Write all inferred types and dims onto the tensors of `model`; drop all other dims."""
    operators = set()
    for node in all_nodes(model.graph):
        if node.domain == "":
            operators.add(node.op_type)
            for output in node.outputs:
                output.shape = None
    try:
        given = without_weights(model).proto
        if operators & _LIKE_INPUT:
            _make_inferable(given.graph)
        proto = onnx.shape_inference.infer_shapes(given, data_prop=True)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        _log.debug("shape inference answered: %s", error)
        return
    _take_over(model.graph, proto.graph, _Types())


def _make_inferable(graph: onnx.GraphProto) -> None:
    """Replace the operators of `_LIKE_INPUT` by Identity, which ONNX can infer."""
    for node in graph.node:
        if node.domain == "" and node.op_type in _LIKE_INPUT:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _make_inferable(body)


def _take_over(graph: ir.Graph, proto: onnx.GraphProto, types: _Types) -> None:
    known = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    for place, node in enumerate(graph):
        for output in node.outputs:
            types.write(output, known.get(output.name or ""))
        if has_bodies(node):
            attributes = proto.node[place].attribute
            inner = [a.g for a in attributes if a.type == onnx.AttributeProto.GRAPH]
            inner += [g for a in attributes for g in a.graphs]
            for body, body_proto in zip(bodies(node), inner):
                _take_over(body, body_proto, types)


class _Types:
    """Reads types and dims from protos; equal protos are parsed once."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[ir.TypeProtocol | None, ir.Shape | None]] = {}

    def write(self, output: ir.Value, proto: onnx.TypeProto | None) -> None:
        """Write the type and the dims of `proto` onto a tensor; with None, nothing."""
        if proto is None:
            return
        content = proto.SerializeToString()
        found = self._known.get(content)
        if found is None:
            found = self._known[content] = _type_of(proto), _shape_of(proto)
        kind, output.shape = found  # frozen, so tensors may share it
        if type(kind) is ir.TensorType:
            output.type = ir.TensorType(kind.dtype, denotation=kind.denotation)
        elif kind is not None:
            output.type = _type_of(proto)


def with_output_sizes(model: ir.Model) -> ir.Model:
    """Return `model`, or a copy whose outputs have the sizes that follow from inputs and weights.

    Where inference finds no number, the size in the file stays: exporters name every axis whose size they do
    not follow themselves, such as the 384 after an Expand.
    """
    if all(_is_known(output.shape) for output in model.graph.outputs):
        return model
    copy, inferred = model.clone(), model.clone()
    infer_model(inferred)
    for output, found in zip(copy.graph.outputs, inferred.graph.outputs):
        output.shape = _filled(output.shape, found.shape)
    return copy


def _is_known(shape: ir.Shape | None) -> bool:
    """Whether all sizes but the first, usually the batch size, are numbers."""
    return shape is not None and all(isinstance(size, int) for size in shape.dims[1:])


def _filled(shape: ir.Shape | None, found: ir.Shape | None) -> ir.Shape | None:
    if shape is None or found is None or len(shape) != len(found):
        return found if shape is None else shape
    return ir.Shape(
        new if isinstance(new, int) and not isinstance(old, int) else old
        for old, new in zip(shape.dims, found.dims)
    )


def infer_node(node: ir.Node, opset_imports: Mapping[str, int]) -> None:
    """Write the inferred types and dims onto the outputs of one new node."""
    version = opset_imports.get(node.domain)
    if node.domain == "" and node.op_type in _LIKE_INPUT:
        first = node.inputs[0]
        if first is not None:
            node.outputs[0].type, node.outputs[0].shape = first.type, first.shape
        return
    types = {v.name or "": _type_proto(v) for v in node.inputs if v is not None}
    if version is None or any(item is None for item in types.values()):
        return
    data = {
        v.name or "": proto
        for v in node.inputs
        if v is not None and (proto := _data_proto(v)) is not None
    }
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        answer = onnx.shape_inference.infer_node_outputs(
            schema, ir.serde.serialize_node(node), types, data, opset_imports=_opsets(opset_imports)
        )
    except (RuntimeError, onnx.defs.SchemaError, onnx.shape_inference.InferenceError) as error:
        _log.debug("shape inference of one %s answered: %s", node.op_type, error)
        return
    inferred = _Types()
    for output in node.outputs:
        inferred.write(output, answer.get(output.name or ""))


def _opsets(imports: Mapping[str, int]) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()]


def _type_proto(value: ir.Value) -> onnx.TypeProto | None:
    if value.type is None:
        return None
    proto = ir.serde.serialize_type(value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _data_proto(value: ir.Value) -> onnx.TensorProto | None:
    tensor = constant_tensor(value)
    if tensor is None or tensor.size > _SMALL:
        return None
    return ir.serde.serialize_tensor(ir.tensor(tensor.numpy()))
