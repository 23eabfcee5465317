"""Finds all nodes of a network that TensorRT's parser refuses, not only the first.

The parser first checks the operators and names all unknown ones; then it imports node by node and stops at
the first failure. So a refused node is removed, new network inputs replace its outputs, and the rest is
parsed again.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.advice import (
    advice_on,
    wants_condition,
    wants_constant,
    wants_plugin,
)
from trtbuild.backends.tensorrt.network import ParserError, parser_errors
from trtbuild.backends.tensorrt.open_builder import OpenBuilder
from trtbuild.errors import ModelError
from trtbuild.files import is_named_in_utf8
from trtbuild.model import name_nodes, read_model
from trtbuild.model.attributes import input_at
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model
from trtbuild.model.names import Names
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.outside_weights import MAPPED_LIMIT
from trtbuild.model.reading import parse_proto
from trtbuild.model.repair import with_absent_inputs
from trtbuild.model.traversal import all_nodes, proto_nodes
from trtbuild.model.weights_apart import read_apart
from trtbuild.model.writing import temporary_file
from trtbuild.runtime.tensorrt.logger import explained, made

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import onnx

    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["WHOLE", "Refusal", "Refusals", "find_refusals"]

# Operators that TensorRT for RTX parses but has no kernel for, whatever the types; found with the ``onnx``
# package's own tests, with fixed shapes. Later versions may have kernels for them.
_WITHOUT_KERNEL = frozenset({"NonMaxSuppression"})
_SEEN_IN = 10701  # 1.7.1

# What the parser says of a node with absent inputs at its end; its name follows.
_INVALID = "Invalid Node - "

_REPAIRED = (
    "`trtbuild engine` repairs it when it reads the network, and `trtbuild optimize` writes it "
    "repaired"
)

WHOLE = "(the network)"
"""Placeholder for the node if the parser names none."""

_MOST_AXES = 8
_NO_TYPES = frozenset(
    {ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
     ir.DataType.COMPLEX64, ir.DataType.COMPLEX128, ir.DataType.STRING}
)  # fmt: skip

# Bytes. Protocol Buffers, and so the parser, refuse larger files.
_PROTOBUF_LIMIT = (1 << 31) - 1

# Each round removes at least one node; a network with more faults cannot be repaired from a list anyway.
_MOST_ROUNDS = 40


@dataclass(frozen=True)
class Refusal:
    """A node that TensorRT's parser refuses.

    Attributes:
        node: its name; empty if the parser means the network itself.
        operator: its operator, with the domain if it is not ONNX's own.
        reason: the parser's message.
        advice: what can be done.
        needs_plugin: whether the parser has no importer and looked for a plugin.
    """

    node: str
    operator: str
    reason: str
    advice: str
    needs_plugin: bool


@dataclass(frozen=True)
class Refusals:
    """Everything that the parser refuses.

    Attributes:
        refused: the nodes, in the order in which they were found.
        unseen_behind: a refused node whose outputs have no known type or rank, so that their readers were not
            checked; empty if every node was checked.
    """

    refused: tuple[Refusal, ...] = ()
    unseen_behind: str = ""


def find_refusals(tensorrt: TensorRT, path: Path, plugins: Sequence[Path] = ()) -> Refusals:
    """Parse a network, and return what the parser refuses.

    Args:
        tensorrt: the installed version.
        path: ONNX file, float or with Q/DQ.
        plugins: shared libraries of plugins.

    Raises:
        ModelError: the file cannot be read, or is not ONNX.
        InputError: a plugin library cannot be read.
        OptionError: a plugin library does not load.
        MissingError: TensorRT does not start, for example without a GPU; TensorRT for RTX starts without one.
    """
    proto = parse_proto(path)  # NVIDIA's parser accepts empty files and some that are not ONNX
    first = _errors(tensorrt, path, plugins)
    without_kernel = _without_kernel(tensorrt, path, proto)
    if not first:
        return Refusals(without_kernel)
    absent = _absent(first, proto)
    model = read_model(path)
    found = _refused(tensorrt, model, first, plugins)
    refused = found.refused
    if absent:
        refused = (*absent, *(one for one in refused if one.advice != _REPAIRED))
    return replace(found, refused=(*refused, *without_kernel))


def _refused(
    tensorrt: TensorRT, model: ir.Model, first: list[ParserError], plugins: Sequence[Path]
) -> Refusals:
    """Find all refused nodes of a network whose whole parsing gave the errors `first`."""
    inner = (node for node in all_nodes(model.graph) if node.graph is not model.graph)
    name_nodes(model, chain(model.graph, inner))
    infer_model(model)
    found: dict[str, Refusal] = {}
    stand_ins: set[ir.Value | None] = set()
    for _ in range(_MOST_ROUNDS):
        with temporary_file(model) as file:
            errors = _errors(tensorrt, file, plugins)
        if not errors:
            # No errors now: reading the file has repaired what it was refused for.
            known = {error.node: _refusal(error, None, model) for error in first}
            repaired = (replace(one, advice=_REPAIRED) for one in known.values())
            return Refusals(tuple(found.values() or repaired))
        nodes = {node.name: node for node in all_nodes(model.graph) if node.name}
        for error in errors:
            node = nodes.get(error.node)
            if node is None or not _follows(node, error, stand_ins):
                found.setdefault(error.node, _refusal(error, node, model))
        for error in errors:
            if error.node not in nodes or not _take_out(model, nodes[error.node], stand_ins):
                return Refusals(tuple(found.values()), unseen_behind=error.node or WHOLE)
        if not model.graph.outputs:
            break
    return Refusals(tuple(found.values()))


def _absent(errors: list[ParserError], proto: onnx.ModelProto) -> tuple[Refusal, ...]:
    """The refused nodes whose last inputs are absent; the parser names others by their first output."""
    called = {
        f"{_INVALID}{node.name or f'node_of_{node.output[0]}'}": node
        for node in with_absent_inputs(proto)
    }
    found = ((error, called.get(error.reason)) for error in errors)
    return tuple(
        Refusal(
            node.name or f"{node.op_type}_{node.output[0]}",
            node.op_type,
            f"{error.reason}: its last input is absent (an empty name)",
            "`trtbuild engine` drops inputs that are absent at the end, and `trtbuild optimize` writes the "
            "network without them",
            needs_plugin=False,
        )
        for error, node in found
        if node is not None
    )


def _without_kernel(tensorrt: TensorRT, path: Path, proto: onnx.ModelProto) -> tuple[Refusal, ...]:
    """Nodes that are parsed but cannot be built; the network is read only if it may have one."""
    if not tensorrt.is_rtx or tensorrt.number > _SEEN_IN or not _may_lack_kernel(proto):
        return ()
    try:
        nodes = tuple(all_nodes(read_model(path).graph))
    except ModelError:  # an opset older than we read, which the parser accepts
        return ()
    reason = "the parser accepts it, but the builder has no kernel for it"
    return tuple(
        Refusal(node.name or "", node.op_type, reason, advice_on(node.op_type, reason), False)
        for node in nodes
        if node.op_type in _WITHOUT_KERNEL and node.domain in ONNX_DOMAINS
    )


def _may_lack_kernel(proto: onnx.ModelProto) -> bool:
    """Whether a parsed file has such a node, without `read_model`, which may repeat warnings."""
    nodes = (*proto_nodes(proto.graph), *(node for one in proto.functions for node in one.node))
    return any(node.op_type in _WITHOUT_KERNEL for node in nodes)


def _errors(tensorrt: TensorRT, path: Path, plugins: Sequence[Path]) -> list[ParserError]:
    """Parse a file, and return the parser's errors; empty if the network is accepted."""
    remedy = "TensorRT needs a GPU to start; TensorRT for RTX does not."
    builder = OpenBuilder.start(tensorrt, plugins, remedy)
    log, strongly_typed = builder.log, tensorrt.network_flags(strongly_typed=True)
    network = made(builder.native.create_network(strongly_typed), "network", log)
    with explained(log, f"{tensorrt} cannot parse '{path.name}'"):
        parser = tensorrt.module.OnnxParser(network, builder.logger)
        if _parses(parser, path):
            return []
        errors = parser_errors(parser)
    return errors or [ParserError("", "", log.reason())]


def _parses(parser: Any, path: Path) -> bool:
    """Whether the parser accepts a file. It copies weights inside a network twice, but maps those outside."""
    is_large = MAPPED_LIMIT < path.stat().st_size <= _PROTOBUF_LIMIT
    if not is_large or not is_named_in_utf8(path.name):
        return bool(parser.parse_from_file(str(path)))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        apart = read_apart(content, path.name)
    return bool(parser.parse(apart, str(path)))


def _follows(node: ir.Node, error: ParserError, stand_ins: Collection[ir.Value | None]) -> bool:
    """Whether a node is refused only because a node before it was removed."""
    return wants_constant(error.reason) and any(value in stand_ins for value in node.inputs)


def _refusal(error: ParserError, node: ir.Node | None, model: ir.Model) -> Refusal:
    operator, reason = error.operator, error.reason
    if node is not None:
        operator = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        reason += _loop_without_condition(model, node, reason)
    elif not error.node:
        reason += _at_fault(model, reason)
    return Refusal(
        error.node,
        operator,
        reason,
        advice_on(operator.rpartition(":")[2], error.reason),
        wants_plugin(error.reason),
    )


def _loop_without_condition(model: ir.Model, node: ir.Node, reason: str) -> str:
    """The Loop whose absent condition a node of its body reads, as the end of the parser's sentence."""
    if not wants_condition(reason):
        return ""
    for loop in all_nodes(model.graph):
        if loop.op_type == "Loop" and input_at(loop, 1) is None:
            condition = loop.attributes["body"].as_graph().inputs[1]
            if condition in node.inputs:
                return (
                    f": '{condition.name}', the condition of the Loop '{loop.name}', which has none"
                )
    return ""


def _at_fault(model: ir.Model, reason: str) -> str:
    """The tensors that the parser means if it names none, as the end of its sentence."""
    values = {*model.graph.inputs, *model.graph.initializers.values(), *model.graph.outputs}
    named = sorted(value.name or "" for value in values if _is_at_fault(value, reason))
    return f": {', '.join(map(repr, named))}" if named else ""


def _is_at_fault(value: ir.Value, reason: str) -> bool:
    if "TensorRT dimensions" in reason:
        return value.shape is not None and len(value.shape) > _MOST_AXES
    return "TensorRT data type" in reason and value.dtype in _NO_TYPES


def _take_out(model: ir.Model, node: ir.Node, stand_ins: set[ir.Value | None]) -> bool:
    """Replace a node by network inputs; return False if the type or rank of an output is not known."""
    names = Names(model)
    graph: Any = node.graph
    for output in node.outputs:
        while output in model.graph.outputs:
            model.graph.outputs.remove(output)
        if not output.uses() and output not in graph.outputs:
            continue
        if output.shape is None or not isinstance(output.type, ir.TensorType):
            return False
        name = names.fresh(f"{output.name}_stand_in")
        value = ir.Value(name=name, type=output.type, shape=output.shape)
        model.graph.inputs.append(value)
        stand_ins.add(value)
        _end_body_with(graph, output, value, node)  # onnx_ir replaces no output of a graph
        ir.convenience.replace_all_uses_with(output, value)
    graph.remove(node, safe=True)
    return True


def _end_body_with(graph: Any, output: ir.Value, value: ir.Value, node: ir.Node) -> None:
    """Let a body give `value` for `output`, by an Identity: a body's outputs must be made inside it."""
    for place, given in enumerate(graph.outputs):
        if given is output:
            passed_on = ir.node("Identity", [value])
            graph.insert_before(node, passed_on)
            passed_on.outputs[0].name = f"{value.name}_{place}"
            passed_on.outputs[0].type, passed_on.outputs[0].shape = value.type, value.shape
            graph.outputs[place] = passed_on.outputs[0]
