"""A network as a protobuf: the one that onnx_ir makes, to the byte, in half the time.

Most of a large network are plain nodes, the types of the tensors between them, and constants. Nodes and types
are written here as they stand in a file, and parsed at once; a type with its dims is put together once. All
else is left to onnx_ir. The encoding: https://protobuf.dev/programming-guides/encoding/; the numbers of
fields: onnx.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.graph_library import ir
from trtbuild.model.weights_apart import varint

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import onnx

__all__ = ["to_proto"]

# Under which onnx_ir keeps what a file says about the range of a tensor.
_ANNOTATION = "quant_parameter_tensor_names"

# Fields of bytes by their numbers in a graph, a node, a tensor and a remark.
_NODE, _VALUE_INFO = b"\x0a", b"\x6a"
_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE, _DOC_STRING, _DOMAIN, _OVERLOAD, _METADATA = (
    bytes((number << 3 | 2,)) for number in (1, 2, 3, 4, 5, 6, 7, 8, 9)
)
_VALUE_NAME, _VALUE_TYPE = b"\x0a", b"\x12"
_KEY, _TEXT = b"\x0a", b"\x12"

_LENGTHS = [bytes((length,)) for length in range(128)]


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return `model` as a protobuf with all of its weights, as ``onnx_ir.to_proto`` does.

    Raises:
        onnx_ir.serde.SerdeError: a weight, an attribute or a type cannot be written.
    """
    if model.functions or not _is_plain(model.graph):
        whole: onnx.ModelProto = ir.to_proto(model)
        return whole
    proto: onnx.ModelProto = ir.to_proto(_without_content(model))
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            value.const_value.name = value.name
            _write_tensor(proto.graph.initializer.add(), value.const_value)
    proto.graph.MergeFromString(b"".join(_nodes_and_types(model.graph)))
    return proto


def _is_plain(graph: ir.Graph) -> bool:
    """Whether no node is bound to a device, and no weight or tensor of a node has a remark on its range."""
    if any(_ANNOTATION in value.meta for value in graph.initializers.values()):
        return False
    return not any(
        node.device_configurations or any(_ANNOTATION in value.meta for value in node.outputs)
        for node in graph
    )


def _without_content(model: ir.Model) -> ir.Model:
    """All of a network but its nodes, and its weights, of which there may be as many."""
    graph = model.graph
    view = ir.GraphView(
        graph.inputs,
        graph.outputs,
        nodes=(),
        doc_string=graph.doc_string,
        opset_imports=graph.opset_imports,
        name=graph.name,
        metadata_props=graph.metadata_props,
    )
    return ir.Model(
        view,  # type: ignore[arg-type]  # onnx_ir says that a view will do
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=model.metadata_props,
        device_configurations=model.device_configurations,
    )


def _write_tensor(written: onnx.TensorProto, tensor: ir.TensorProtocol) -> None:
    # `isinstance` takes long, for a tensor is a protocol
    if (
        type(tensor) not in (ir.Tensor, ir.ExternalTensor)
        or tensor.doc_string
        or tensor.metadata_props
    ):
        ir.serde.serialize_tensor_into(written, tensor)
        return
    if tensor.name:
        written.name = tensor.name
    written.data_type = tensor.dtype.value
    written.dims.extend(tensor.shape.numpy())
    if type(tensor) is not ir.ExternalTensor:
        written.raw_data = tensor.tobytes()
        return
    written.data_location = written.EXTERNAL
    place = {"location": tensor.location, "offset": tensor.offset, "length": tensor.length}
    for key, value in place.items():
        if value is not None:
            written.external_data.add(key=key, value=str(value))


def _nodes_and_types(graph: ir.Graph) -> Iterator[bytes]:
    """The nodes of a graph, and what is known of weights and of what nodes make."""
    types = _Types()
    inputs = {value.name for value in graph.inputs}
    for value in graph.initializers.values():
        if value.name not in inputs and (known := types.known_of(value)) is not None:
            yield _field(_VALUE_INFO, known)
    for node in graph:
        yield _field(_NODE, b"".join(_node(node)))
        for value in node.outputs:
            if value.name and not value.is_graph_output():
                known = types.known_of(value)
                if known is not None:
                    yield _field(_VALUE_INFO, known)


def _field(head: bytes, content: bytes) -> bytes:
    length = len(content)
    return head + (_LENGTHS[length] if length < 128 else varint(length)) + content


def _node(node: ir.Node) -> Iterator[bytes]:
    for value in node.inputs:
        yield _field(_INPUT, b"" if value is None else (value.name or "").encode())
    names = [value.name or "" for value in node.outputs]
    while names and not names[-1]:  # of outputs at the end that are left out
        names.pop()
    for name in names:
        yield _field(_OUTPUT, name.encode())
    if node.name:
        yield _field(_NAME, node.name.encode())
    yield _field(_OP_TYPE, node.op_type.encode())
    if node.attributes:
        for attribute in node.attributes.values():
            yield _field(_ATTRIBUTE, _attribute(attribute))
    remarks = ((_DOC_STRING, node.doc_string), (_DOMAIN, node.domain), (_OVERLOAD, node.overload))
    for head, text in remarks:
        if text:
            yield _field(head, text.encode())
    for key, text in sorted(node.metadata_props.items()) if node.metadata_props else ():
        yield _field(_METADATA, _field(_KEY, key.encode()) + _field(_TEXT, text.encode()))


def _attribute(attribute: ir.Attr) -> bytes:
    serialize = (
        ir.serde.serialize_reference_attribute
        if attribute.is_ref()
        else ir.serde.serialize_attribute
    )
    content: bytes = serialize(attribute).SerializeToString()
    return content


class _Types:
    """Types with their dims as bytes; many tensors of a network have the same."""

    def __init__(self) -> None:
        self._known: dict[Hashable, bytes] = {}

    def known_of(self, value: ir.Value) -> bytes | None:
        """Return name and type of a tensor with a name; None if nothing is known of it."""
        kind, shape = value.type, value.shape
        if kind is None and shape is None and not value.doc_string and not value.metadata_props:
            return None
        if type(kind) is not ir.TensorType or value.doc_string or value.metadata_props:
            content: bytes = ir.serde.serialize_value(value).SerializeToString()
            return content
        key: tuple[Hashable, ...] = (kind.dtype, kind.denotation)
        if shape is not None:
            key += (shape.dims, tuple(map(shape.get_denotation, range(len(shape)))))
        found = self._known.get(key)
        if found is None:
            written = ir.serde.serialize_value(value).type.SerializeToString()
            found = self._known[key] = _field(_VALUE_TYPE, written)
        return _field(_VALUE_NAME, (value.name or "").encode()) + found
