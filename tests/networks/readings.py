"""Variants of files: opsets, weights, dims, names."""

from __future__ import annotations

import numpy as np
import onnx

from tests.networks.network import IMAGE, Network, from_text

__all__ = ["NETWORKS"]


def _small_cnn(opset: int, **kwargs: object) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, MaxPool, Conv, GlobalAveragePool, Flatten, Gemm: in every opset."""
    body = """
    cnn (float[N, 3, 8, 8] x) => (float[N, 5] y) {
      c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w0, b0)
      n = BatchNormalization <epsilon = 0.001> (c, gamma, beta, mean, var)
      r = Relu (n)
      p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
      d = Conv <pads = [1, 1, 1, 1]> (p, w1)
      s = Relu (d)
      g = GlobalAveragePool (s)
      f = Flatten (g)
      y = Gemm <transB = 1> (f, w2, b2)
    }"""
    shapes = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "w2": (5, 8), "b2": (5,)}
    proto = from_text(body, shapes, opset=opset, **kwargs)  # type: ignore[arg-type]
    random = np.random.default_rng(2)
    for name in ("gamma", "beta", "mean", "var"):
        array = random.uniform(0.5, 1.5, 8).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if kwargs.get("as_inputs"):
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, (8,)))
    return proto


def _weights_as_constants() -> onnx.ModelProto:
    proto = _small_cnn(11)
    constants = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    nodes = list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend([*constants, *nodes])
    return proto


def _with_dims(*dims: int | str | None) -> onnx.ModelProto:
    proto = _small_cnn(17)
    for value, sizes in ((proto.graph.input[0], dims), (proto.graph.output[0], (dims[0], 5))):
        shape = value.type.tensor_type.shape
        for dim, size in zip(shape.dim, sizes):
            dim.Clear()
            if isinstance(size, int):
                dim.dim_value = size
            elif size is not None:
                dim.dim_param = size
    return proto


def _with_float16() -> onnx.ModelProto:
    body = """
    half (float16[N, 3, 8, 8] x) => (float16[N, 5] y) {
      c = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
      r = Relu (c)
      d = Conv (r, w1)
      a = GlobalAveragePool (d)
      f = Flatten (a)
      y = Gemm <transB = 1> (f, w2)
    }"""
    shapes = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "w2": (5, 8)}
    return from_text(body, shapes, dtype=np.float16)


def _with_names(*, node_names: list[str], rename: dict[str, str] | None = None) -> onnx.ModelProto:
    """The small CNN with other names of nodes and tensors."""
    proto = _small_cnn(17)
    for node, name in zip(proto.graph.node, node_names):
        node.name = name
    for old, new in (rename or {}).items():
        for node in proto.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
            value.name = new if value.name == old else value.name
    return proto


def _zeroed(proto: onnx.ModelProto, name: str, rows: slice) -> onnx.ModelProto:
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[rows] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return proto


def _in_function() -> onnx.ModelProto:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    net (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {
      a = local.block (x, w0)
      y = Conv (a, w1)
    }
    <domain: "local", opset_import: ["" : 17]>
    block (data, weight) => (out) {
      c = Conv <pads = [1, 1, 1, 1]> (data, weight)
      out = Relu (c)
    }"""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(3)
    for name, shape in {"w0": (6, 3, 3, 3), "w1": (4, 6, 3, 3)}.items():
        array = (random.standard_normal(shape) / 5).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


# Opset -> the IR version of its time.
_OPSETS = {7: 4, 8: 4, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 15: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}


def _opsets() -> dict[str, Network]:
    return {
        f"opset_{opset}": Network(_small_cnn(opset, ir_version=ir), IMAGE, 3)
        for opset, ir in _OPSETS.items()
    }


def _readings() -> dict[str, Network]:
    """Variants of weights, dims and names."""
    return {
        "weights_are_inputs": Network(_small_cnn(8, ir_version=3, as_inputs=True), IMAGE, 3),
        "weights_are_inputs_ir8": Network(_small_cnn(17, as_inputs=True), IMAGE, 3),
        "weights_are_constants": Network(_weights_as_constants(), IMAGE, 3),
        "dims_static": Network(_with_dims(1, 3, 8, 8), IMAGE, 3),
        "dims_static_batch_4": Network(_with_dims(4, 3, 8, 8), IMAGE, 3),
        "dims_all_dynamic": Network(_with_dims(None, 3, None, None), IMAGE, 3),
        "dims_named": Network(_with_dims("batch", 3, "height", "width"), IMAGE, 3),
        "dims_minus_one": Network(_with_dims(-1, 3, -1, -1), IMAGE, 3),
        "names_empty": Network(_with_names(node_names=[""] * 9), IMAGE, 3),
        "names_equal": Network(_with_names(node_names=["layer"] * 9), IMAGE, 3),
        "names_odd": Network(
            _with_names(
                node_names=["a b", "[0]", "ä/ö", "x:0", "*", "graph output", "名前", "'", '"'],
                rename={"x": "input 0:画像", "y": "output/ä b", "w0": "weight [0]", "r": "r:0"},
            ),
            {"input 0:画像": (3, 8, 8)},
            3,
        ),
        "names_taken": Network(
            _with_names(
                node_names=["x_quantized_QuantizeLinear", "x_dequantized_DequantizeLinear"],
                rename={"c": "x_scale", "n": "x_quantized", "r": "w0_int8", "p": "w0_scale"}
                | {"d": "x_zero_point", "s": "x_dequantized", "g": "w0_dequantized"}
                | {"f": "b2_int32"},
            ),
            IMAGE,
            3,
        ),
        "float16": Network(_with_float16(), IMAGE, 3),
        "zero_channel": Network(_zeroed(_small_cnn(17), "w1", slice(2, 3)), IMAGE, 3),
        "zero_bias": Network(_zeroed(_small_cnn(17), "b2", slice(None)), IMAGE, 3),
        "function": Network(_in_function(), IMAGE, 2),
    }


NETWORKS = {**_opsets(), **_readings()}
