"""Writes FP16 into the network: TensorRT 11 needs this, as it has no flag for FP16.

Each node either computes in FP16 or stays FP32, with Casts between the two; inputs and outputs of the
network keep their types. The output of a DequantizeLinear has the type of its scale, and a Cast between it
and its layer would prevent their fusion, so that the layer runs in float. So a DequantizeLinear gets the
type of its readers, with a second one if readers differ; if its output must be FP32, its readers stay FP32.
A QuantizeLinear's scale must have the type of its input. FP16 scales need opset 19. Weights behind a
DequantizeLinear are quantized again with the rounded scale, so that only their own rounding changes; both
halves of a pair have equal scales.

These stay FP32, and the result says why: tensors whose observed magnitude comes near the largest FP16
number, weights beyond it, operators that sum or exponentiate, operators that ONNX does not define for FP16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx

from trtbuild.errors import ModelError
from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array, is_constant
from trtbuild.model.edits import GraphWriter, add_initializer, remove_unread, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model
from trtbuild.model.names import Names
from trtbuild.model.operators import QDQ, RECURRENT, moves_values
from trtbuild.model.opset import opset_of, raise_opset
from trtbuild.model.qdq import along_axis
from trtbuild.model.traversal import all_nodes, bodies, has_bodies
from trtbuild.plan import INT8_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from calibrators import Calibration

__all__ = ["HEADROOM", "SUMMING", "KeptFloat", "float_activations", "magnitudes", "to_half"]

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
HALF_MAX = float(np.finfo(np.float16).max)

# Values may exceed those of the calibration data by this factor before FP16 overflows.
HEADROOM = 4.0

# Their results or intermediate sums can far exceed their inputs; decomposed normalizations consist of them.
SUMMING = frozenset(
    {"Exp", "Log", "Pow", "CumSum", "ReduceSum", "ReduceMean", "ReduceProd", "ReduceSumSquare", "ReduceL1",
     "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
)  # fmt: skip

# The first opset whose QuantizeLinear and DequantizeLinear take FP16 scales.
HALF_SCALE_OPSET = 19
# Input index of the sequence lengths of a recurrent layer.
_LENGTHS = 4
# TensorRT accepts no Cast before the cache, their first input.
_CACHING = frozenset({"TensorScatter"})


@dataclass(frozen=True)
class KeptFloat:
    """A node that stays FP32, and why."""

    node: str
    op_type: str
    reason: str


def float_activations(model: ir.Model) -> frozenset[str]:
    """Return the names of the computed float32 tensors, whose magnitudes `to_half` needs."""
    typed = model.clone()
    infer_model(typed)
    outputs = (value for node in typed.graph for value in node.outputs)
    return frozenset(value.name for value in outputs if value.name and value.dtype == FLOAT)


def magnitudes(calibration: Calibration | None) -> dict[str, float]:
    """Return the largest magnitude of each tensor in the calibration data; empty without a calibration."""
    ranges = {} if calibration is None else calibration.ranges
    return {name: given.observed_amax for name, given in ranges.items()}


def to_half(
    model: ir.Model, observed: Mapping[str, float]
) -> tuple[ir.Model, tuple[KeptFloat, ...]]:
    """Return a copy of a network, with or without Q/DQ, that computes in FP16 where it can.

    Nodes that are FP16 already stay so.

    Args:
        model: the network; its nodes have names.
        observed: tensor name -> largest magnitude seen; other tensors are assumed to be small.

    Returns:
        The network, and the nodes that stay FP32.

    Raises:
        ModelError: the opset cannot be raised to 19 for Q/DQ in FP16.
    """
    model = _typed_clone(model)
    kept = []
    half_nodes = set()
    for node in model.graph:
        reason = _why_float(node, observed)
        if reason is None:
            half_nodes.add(node)
        elif reason and _touches_float(node):
            kept.append(KeptFloat(node.name or "", node.op_type, reason))
    kept.extend(_keep_in_front_of_recurrences(model, half_nodes))
    _follow_readers(model, half_nodes)
    _Typing(model).apply(half_nodes)
    remove_unread(model)
    return model, tuple(kept)


def _typed_clone(model: ir.Model) -> ir.Model:
    """A copy with a type on every value, raised to opset 19 if it has Q/DQ."""
    opset = opset_of(model)
    has_quantizers = any(node.op_type in QDQ for node in model.graph)
    raised = has_quantizers and opset < HALF_SCALE_OPSET
    model = _raised(model, HALF_SCALE_OPSET) if raised else model.clone()
    infer_model(model)
    return model


def _raised(model: ir.Model, opset: int) -> ir.Model:
    raised = model.clone()
    try:
        raise_opset(raised, opset)
    except ModelError as error:
        raise ModelError(
            f"FP16 beside INT8 needs opset {opset}, and this network of opset "
            f"{opset_of(model)} cannot be raised: ONNX's converter answered: {error}. "
            f"Export it with opset {opset}."
        ) from error
    return raised


def _why_float(node: ir.Node, observed: Mapping[str, float]) -> str | None:
    """None for a node that becomes FP16, else why not; an empty text if that is not worth reporting."""
    if has_bodies(node):
        return "it holds a graph of its own"
    if node.op_type == "Constant":
        return ""
    if node.op_type in SUMMING:
        return "its results can leave the range of FP16 though its inputs do not"
    if not _takes_half(node):
        return "ONNX does not define it for FP16"
    reasons = (_why_float_value(value, observed) for value in (*node.inputs, *node.outputs))
    return _why_not_parsed(node) or next(filter(None, reasons), None)


def _why_not_parsed(node: ir.Node) -> str:
    """Why NVIDIA's parser or builder rejects a node in FP16 although ONNX allows it; else empty."""
    if node.op_type in RECURRENT and input_at(node, _LENGTHS) is not None:
        return "NVIDIA's parser takes lengths of sequences in FP32 alone"
    cache = node.inputs[0] if node.op_type in _CACHING else None
    if cache is not None and cache.is_graph_input():
        return "it writes into an input of the network, whose type stays"
    return ""


def _why_float_value(value: ir.Value | None, observed: Mapping[str, float]) -> str:
    if value is None or value.dtype != FLOAT:
        return ""
    largest = observed.get(_origin(value).name or "", 0.0)
    if largest * HEADROOM > HALF_MAX:
        return f"tensor '{value.name}' reached {largest:.6g}, and FP16 ends at {HALF_MAX:.0f}"
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and not _is_weight(producer):
        value = producer.inputs[1] or value  # the scale decides the type of its output
    content = array(value)
    if content is None:
        return ""
    if content.size and np.abs(content).max() > HALF_MAX:
        return f"constant '{value.name}' holds {np.abs(content).max():.6g}, and FP16 ends at {HALF_MAX:.0f}"
    if _is_activation_scale(value) and _vanishes(content):
        return f"the scale '{value.name}' is too small for FP16"
    return ""


def _vanishes(scale: np.ndarray) -> bool:
    return not np.all(scale.astype(np.float16))


def _keep_in_front_of_recurrences(model: ir.Model, half_nodes: set[ir.Node]) -> Iterator[KeptFloat]:
    """Keep nodes in FP32 that compute the sequence of an FP32 recurrent layer; yield these nodes.

    TensorRT for RTX 1.7.1 moves a Cast before such a layer into the layer's loop, where the shapes do not
    fit, and the build fails (measured; after a node that computes, the Cast stays where it is).
    """
    for node in reversed(model.graph):
        if node.op_type not in RECURRENT or node in half_nodes:
            continue
        value = node.inputs[0]
        producer = None if value is None else value.producer()
        while producer is not None and producer in half_nodes:
            half_nodes.discard(producer)
            reason = f"it gives '{node.name}', which stays FP32, its sequence"
            yield KeptFloat(producer.name or "", producer.op_type, reason)
            value = producer.inputs[0] if moves_values(producer) else None
            producer = None if value is None else value.producer()


def _follow_readers(model: ir.Model, half_nodes: set[ir.Node]) -> None:
    """Give every DequantizeLinear the type of its readers, and duplicate it if they differ."""
    writer = GraphWriter(model)
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear" or node not in half_nodes:
            continue
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        in_float = [use for use in output.uses() if use.node not in half_nodes]
        if len(in_float) == len(output.uses()):
            half_nodes.discard(node)
        elif in_float:
            parameters = [value for value in node.inputs[1:] if value is not None]
            hint = f"{output.name}_fp32"
            twin = writer.dequantize(source, parameters, hint, like=output, axis=None)
            twin.attributes.update(node.attributes)
            model.graph.insert_after(node, twin)
            for use in in_float:
                use.node.replace_input_with(use.idx, twin.outputs[0])
    for node in reversed(model.graph):
        if node.op_type == "QuantizeLinear" and not any(
            use.node in half_nodes for use in node.outputs[0].uses()
        ):
            half_nodes.discard(node)


def _origin(value: ir.Value) -> ir.Value:
    """The tensor before the Q/DQ that a value comes through; the value itself without Q/DQ."""
    producer = value.producer()
    while producer is not None and producer.op_type in QDQ:
        source = producer.inputs[0]
        if source is None:
            break
        value, producer = source, source.producer()
    return value


def _is_activation_scale(value: ir.Value) -> bool:
    return any(
        use.node.op_type in QDQ and use.idx == 1 and not _is_weight(use.node)
        for use in value.uses()
    )


def _is_weight(node: ir.Node) -> bool:
    """Whether a node is a DequantizeLinear of a constant."""
    source = node.inputs[0]
    return node.op_type == "DequantizeLinear" and is_constant(source)


def _touches_float(node: ir.Node) -> bool:
    return any(v is not None and v.dtype == FLOAT for v in (*node.inputs, *node.outputs))


class _Typing:
    """Sets the types of nodes and inserts Casts between different types."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._names = Names(model)
        self._half: dict[ir.Value, ir.Value] = {}
        self._float: dict[ir.Value, ir.Value] = {}
        # Values that this class turned into FP16; nodes that were FP16 before are left unchanged.
        self._turned: set[ir.Value] = set()

    def apply(self, half_nodes: set[ir.Node]) -> None:
        """Give `half_nodes` FP16 inputs and outputs; all others keep their types, with Casts in between."""
        for node in list(self._graph):
            if node in half_nodes:
                self._make_half(node)
            else:
                for inner in (node, *(n for body in bodies(node) for n in all_nodes(body))):
                    self._make_float(inner)
        for output in list(self._graph.outputs):
            if output in self._turned:
                take_over_output(
                    output, self._as_float(output), aside=self._names.fresh(f"{output.name}_fp16")
                )

    def _make_half(self, node: ir.Node) -> None:
        if _is_weight(node):
            self._requantize(node)
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == FLOAT and _takes_half(node, index):
                node.replace_input_with(index, self._as_half(value))
        if node.op_type == "Cast" and node.attributes["to"].as_int() == int(FLOAT):
            node.attributes["to"] = ir.AttrInt64("to", int(HALF))
        for output in node.outputs:
            if output.dtype == FLOAT:
                output.type = ir.TensorType(
                    HALF
                )  # not output.dtype: clones share their type objects
                self._turned.add(output)

    def _make_float(self, node: ir.Node) -> None:
        if node.op_type == "DequantizeLinear":
            self._match_scale(node)
        for index, value in enumerate(node.inputs):
            if value in self._turned:
                assert value is not None
                node.replace_input_with(index, self._as_float(value))

    def _match_scale(self, node: ir.Node) -> None:
        """Give an FP32 DequantizeLinear the rounded scale of its FP16 QuantizeLinear."""
        source, scale = node.inputs[0], node.inputs[1]
        quantize = source.producer() if source is not None else None
        content = array(scale)
        if quantize is None or content is None or quantize.inputs[1] is None:
            return
        if quantize.inputs[1].dtype == HALF and scale is not None and scale.dtype == FLOAT:
            rounded = _rounded(content).astype(np.float32)
            node.replace_input_with(1, self._initializer(f"{scale.name}_rounded", rounded))

    def _as_half(self, value: ir.Value) -> ir.Value:
        if value not in self._half:
            content = array(value)
            self._half[value] = (
                self._cast(value, HALF)
                if content is None
                else self._initializer(f"{value.name}_fp16", _rounded(content))
            )
        return self._half[value]

    def _as_float(self, value: ir.Value) -> ir.Value:
        if value not in self._float:
            self._float[value] = self._cast(value, FLOAT)
        return self._float[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        suffix = "fp16" if dtype == HALF else "fp32"
        node = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{value.name}_to_{suffix}")
        output = node.outputs[0]
        output.name = self._names.fresh(f"{value.name}_{suffix}")
        output.dtype, output.shape = dtype, value.shape
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return output

    def _requantize(self, node: ir.Node) -> None:
        """Round the scales of an INT8 weight to FP16 and quantize the weight again with them."""
        integers, scale = node.inputs[0], node.inputs[1]
        content, old = array(integers), array(scale)
        assert integers is not None and content is not None  # noqa: PT018
        assert scale is not None and old is not None  # noqa: PT018
        old = old.astype(np.float64)
        new = _rounded(old)
        axis = normal_axis(int(attribute(node, "axis", 1)), content.ndim)
        ratio = along_axis(old / new, axis, content.ndim)
        requantized = np.clip(np.rint(content * ratio), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
        node.replace_input_with(0, self._initializer(f"{integers.name}_fp16", requantized))
        node.replace_input_with(1, self._initializer(f"{scale.name}_{node.name}_fp16", new))

    def _initializer(self, name: str, content: np.ndarray) -> ir.Value:
        return add_initializer(self._graph, self._names.fresh(name), content)


def _rounded(content: np.ndarray) -> np.ndarray:
    """Constants as FP16; a positive number that would become 0 gets the smallest FP16 number instead."""
    half = np.asarray(content).astype(np.float16)
    tiny = np.finfo(np.float16).smallest_subnormal
    vanished = (half == 0) & (np.asarray(content) > 0)
    return np.where(vanished, tiny, half).astype(np.float16)


def _takes_half(node: ir.Node, index: int | None = None) -> bool:
    """Whether ONNX's definition allows a node, or with an index that input, to be FP16.

    A node may be FP16 if all its float outputs and at least one of its float inputs may; inputs that may
    not, such as the scales of Resize, stay float.
    """
    opset = node.graph.opset_imports.get(node.domain, 0) if isinstance(node.graph, ir.Graph) else 0
    allowed = _half_allowed(node.op_type, node.domain, opset)
    if allowed is None:
        return False
    inputs, outputs = allowed
    if index is not None:
        return _at(inputs, index)
    floats = [
        i for i, v in enumerate(node.inputs) if v is not None and v.dtype == ir.DataType.FLOAT
    ]
    answers = [i for i, v in enumerate(node.outputs) if v.dtype == ir.DataType.FLOAT]
    if not floats and node.op_type not in ("Cast", "DequantizeLinear"):
        return not answers  # the type of a float made from other types is set by an attribute
    return all(_at(outputs, i) for i in answers) and (
        not floats or any(_at(inputs, i) for i in floats)
    )


def _at(allowed: tuple[bool, ...], index: int) -> bool:
    """The entry for a formal parameter; the last one repeats, for variadic parameters."""
    return bool(allowed) and allowed[min(index, len(allowed) - 1)]


@cache
def _half_allowed(
    op_type: str, domain: str, opset: int
) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """For each formal input and output, whether FP16 is allowed; None for an unknown operator."""
    try:
        schema = onnx.defs.get_schema(op_type, opset or onnx.defs.onnx_opset_version(), domain)
    except onnx.defs.SchemaError:
        return None
    types = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}

    def allows(type_name: str) -> bool:
        return "tensor(float16)" in types.get(type_name, {type_name})

    return (
        tuple(allows(formal.type_str) for formal in schema.inputs),
        tuple(allows(formal.type_str) for formal in schema.outputs),
    )
