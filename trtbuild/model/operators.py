"""Facts about operators: which have weights, how they treat values, which only move them.

Sources: NVIDIA's TensorRT developer guide on explicit quantization (per-channel axes, which operators
commute with scaling), and NVIDIA's forum and issue answers where the guide is silent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import array

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "ACTIVATIONS",
    "AVERAGING",
    "BROADCASTING",
    "CLIPPING",
    "CONVOLUTIONS",
    "ONNX_DOMAINS",
    "POOLING",
    "QDQ",
    "RANDOM",
    "RECURRENT",
    "UNARY",
    "WEIGHTED",
    "moves_values",
    "weight_axis",
]

ONNX_DOMAINS = ("", "ai.onnx")
"""The two names of the domain of ONNX's own operators."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
WEIGHTED = CONVOLUTIONS | {"Gemm", "MatMul"}
QDQ = frozenset({"DequantizeLinear", "QuantizeLinear"})
AVERAGING = frozenset({"AveragePool", "GlobalAveragePool"})
POOLING = AVERAGING | frozenset({"GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"})
RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""They need no varying input, and still give other results in each run."""

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
CLIPPING = frozenset({"Clip", "Relu"})
"""Kernels apply them to their result before rounding it to INT8."""

ACTIVATIONS = frozenset(
    {
        "Celu",
        "Clip",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    }
)
"""Element by element, one input tensor and one output; other operands are scalars."""

UNARY = ACTIVATIONS | frozenset(
    {
        "Abs",
        "Cast",
        "Ceil",
        "Cos",
        "Erf",
        "Exp",
        "Floor",
        "Identity",
        "Log",
        "Neg",
        "Not",
        "Reciprocal",
        "Round",
        "Sign",
        "Sin",
        "Sqrt",
    }
)
"""Element by element, one input tensor and one output."""

BROADCASTING = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    }
)
"""Element by element over operands that broadcast in both directions."""

# Outputs hold values of input 0 (and zeros), so the scale of the input serves the output.
_MOVING = frozenset(
    {
        "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def moves_values(node: ir.Node) -> bool:
    """Return whether `node` only moves, repeats, drops or picks values of its input 0."""
    if node.domain not in ONNX_DOMAINS:
        return False
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    if node.op_type == "Pad":
        return _pads_with_known_values(node)
    return node.op_type in _MOVING


def _pads_with_known_values(node: ir.Node) -> bool:
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    if fill is None:
        return True
    content = array(fill)
    return content is not None and not content.any()


def weight_axis(node: ir.Node, rank: int) -> int | None:
    """Return the axis of one scale per output channel, or None where TensorRT takes one scale per tensor.

    Conv 0; Gemm 0 with transB and 1 without; MatMul by a matrix 1. ConvTranspose is disputed between
    TensorRT's maintainers (axis 0, of the input channels) and its tools (axis 1), so it gets one scale.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    if node.op_type == "MatMul" and rank == 2:
        return 1
    return None
