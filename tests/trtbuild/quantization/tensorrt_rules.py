"""TensorRT's rules for an explicit INT8 network, checked on the file without trtbuild's code.

Sources: NVIDIA's TensorRT developer guide, "Explicit quantization" and "Q/DQ layer-placement
recommendations"; the ONNX parser's handling of QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["int8_layers", "violations"]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVING = (
    *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape"),
    *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)


class _Graph:
    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.nodes = list(proto.graph.node)
        self.constants = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def made_by(self, name: str, *op_types: str) -> bool:
        producer = self.producer.get(name)
        return producer is not None and producer.op_type in op_types

    def scale(self, name: str) -> np.ndarray:
        """The scale of the DQ that makes `name`."""
        return self.constants[self.producer[name].input[1]]


def int8_layers(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes whose data and weight both come from DequantizeLinear."""
    graph = _Graph(proto)
    return [
        node.name
        for node in graph.nodes
        if node.op_type in WEIGHTED
        and all(graph.made_by(name, "DequantizeLinear") for name in node.input[:2])
    ]


def violations(proto: onnx.ModelProto) -> list[str]:
    """Every breach of a rule, as one sentence each."""
    graph = _Graph(proto)
    checks = (_format, _pairs, _scales, _weights, _layers, _adds, _equal_scales, _leftovers)
    return [found for check in checks for found in check(graph)]


def _axis(node: onnx.NodeProto) -> int | None:
    return next((a.i for a in node.attribute if a.name == "axis"), None)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 0)


def _qdq(graph: _Graph) -> list[onnx.NodeProto]:
    return [n for n in graph.nodes if n.op_type in ("QuantizeLinear", "DequantizeLinear")]


def _format(graph: _Graph) -> Iterator[str]:
    opsets = {entry.domain: entry.version for entry in graph.proto.opset_import}
    half = any(graph.constants[n.input[1]].dtype == np.float16 for n in _qdq(graph))
    if opsets[""] < (19 if half else 13):
        yield f"opset {opsets['']}"
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield f"'{node.name}' is of the domain {node.domain}"
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in body.node):
                    yield f"Q/DQ in a body of '{node.name}'"


def _pairs(graph: _Graph) -> Iterator[str]:
    quantized = Counter(n.input[0] for n in graph.nodes if n.op_type == "QuantizeLinear")
    outputs = {value.name for value in graph.proto.graph.output}
    yield from (f"'{name}' is quantized {n} times" for name, n in quantized.items() if n > 1)
    for node in _qdq(graph):
        if node.op_type == "QuantizeLinear":
            readers = graph.readers[node.output[0]]
            if len(readers) != 1 or readers[0].op_type != "DequantizeLinear":
                yield f"the integers of '{node.name}' are read by {[n.op_type for n in readers]}"
            elif list(readers[0].input[1:]) != list(node.input[1:]):
                same = all(
                    np.array_equal(graph.constants[a], graph.constants[b])
                    for a, b in zip(node.input[1:], readers[0].input[1:])
                )
                if not same:
                    yield f"Q and DQ of '{node.input[0]}' have other parameters"
        elif not graph.readers[node.output[0]] and node.output[0] not in outputs:
            yield f"nobody reads '{node.name}'"


def _scales(graph: _Graph) -> Iterator[str]:
    for node in _qdq(graph):
        if len(node.input) != 3 or not set(node.input[1:]) <= set(graph.constants):
            yield f"'{node.name}' has no constant scale and zero point"
            continue
        scale, zero = (graph.constants[name] for name in node.input[1:])
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            yield f"'{node.name}' has a scale that is not positive and finite"
        if zero.dtype != np.int8 or zero.any() or zero.shape != scale.shape:
            yield f"'{node.name}' has the zero point {zero.dtype}{zero.shape}"
        constant = graph.constants.get(node.input[0])
        if scale.ndim == 0:
            continue
        if constant is None or node.op_type == "QuantizeLinear":
            yield f"'{node.name}' has {scale.size} scales for an activation"
        elif _axis(node) is None or scale.shape != (constant.shape[_axis(node)],):
            yield f"'{node.name}' has scales {scale.shape} on axis {_axis(node)}"


def _weights(graph: _Graph) -> Iterator[str]:
    for node in _qdq(graph):
        constant = graph.constants.get(node.input[0])
        if constant is None:
            continue
        if node.op_type == "QuantizeLinear" or constant.dtype != np.int8 or constant.ndim == 0:
            yield f"the weight of '{node.name}' is {constant.dtype}{constant.shape}"
        elif constant.min(initial=0) < -127:
            yield f"the weight of '{node.name}' holds -128"


def _wanted_axis(node: onnx.NodeProto, rank: int) -> int | None:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB") else 1
    return 1 if node.op_type == "MatMul" and rank == 2 else None


def _layers(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op_type not in WEIGHTED:
            continue
        quantized = [graph.made_by(name, "DequantizeLinear") for name in node.input]
        if any(quantized[2:]):
            yield f"the bias of '{node.name}' is not float"
        if quantized[0] != quantized[1]:
            yield f"'{node.name}' reads Q/DQ on one side only"
        if quantized[1]:
            weight = graph.producer[node.input[1]]
            scale = graph.constants[weight.input[1]]
            axis = _wanted_axis(node, graph.constants[weight.input[0]].ndim)
            if scale.ndim != (axis is not None) or (axis is not None and _axis(weight) != axis):
                yield f"'{node.name}' has weight scales {scale.shape} on axis {_axis(weight)}"


def _adds(graph: _Graph) -> Iterator[str]:
    """Only the skip branch of a residual Add has Q/DQ, never the branch that is fused with it."""
    for node in graph.nodes:
        if node.op_type != "Add":
            continue
        skip = [name for name in node.input if graph.made_by(name, "DequantizeLinear")]
        if not skip:
            continue
        main = [name for name in node.input if name not in skip]
        if len(skip) != 1 or len(main) != 1 or not graph.made_by(main[0], *WEIGHTED):
            yield f"'{node.name}' reads Q/DQ at {skip} beside {main}"


def _equal_scales(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op_type not in (*MOVING, "Concat"):
            continue
        moved = list(node.input) if node.op_type == "Concat" else list(node.input[:1])
        from_dq = [name for name in moved if graph.made_by(name, "DequantizeLinear")]
        if node.op_type == "Concat" and from_dq and len(from_dq) != len(moved):
            yield f"'{node.name}' reads {len(from_dq)} of {len(moved)} inputs through Q/DQ"
        scales = [graph.scale(name) for name in from_dq]
        if node.op_type == "Concat":
            # a narrower part with other readers may have a scale of its own
            scales = [
                scale
                for name, scale in zip(from_dq, scales)
                if len(graph.readers[name]) == 1 or scale * 2 > max(scales)
            ]
        for output in node.output:
            scales += [
                graph.constants[reader.input[1]]
                for reader in graph.readers[output]
                if reader.op_type == "QuantizeLinear" and from_dq
            ]
        if any(scale.shape or scale != scales[0] for scale in scales):
            yield f"the scales around '{node.name}' differ: {scales}"


def _leftovers(graph: _Graph) -> Iterator[str]:
    inside = {
        name
        for node in graph.nodes
        for attribute in node.attribute
        for body in (attribute.g, *attribute.graphs)
        for inner in body.node
        for name in inner.input
    }
    outputs = {value.name for value in graph.proto.graph.output}
    for name in graph.constants:
        if not graph.readers[name] and name not in inside | outputs:
            yield f"nobody reads the weight '{name}'"
