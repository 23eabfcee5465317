"""Turns a Q/DQ network into a plain network and a calibration cache, for DLA and for TensorRT 10.

Pairs on activations are removed, and their scales become cache entries, bit for bit. Weights become float32
again: the integers times their scales. TensorRT quantizes them to the same integers, because the largest
magnitude of each channel is 127 steps. Tensors without a pair get the scale of a neighbour that holds the
same values, so that fused kernels find a scale on every tensor.
"""

from __future__ import annotations

import numpy as np

from calibrators.cache import CalibrationCache, version_digits
from trtbuild.errors import ModelError
from trtbuild.migration.report import Entry, Fate, Migration
from trtbuild.model.attributes import input_at
from trtbuild.model.constants import array, is_constant
from trtbuild.model.edits import add_initializer, remove_unread, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.qdq import dequantized
from trtbuild.model.traversal import values_of
from trtbuild.quantization.scale_propagation import propagate

__all__ = ["to_cache"]


def to_cache(model: ir.Model, version: str, algorithm: str = "EntropyCalibration2") -> Migration:
    """Remove the Q/DQ from a network.

    Args:
        model: a network in TensorRT's explicit form: INT8, symmetric, one scale per activation.
        version: TensorRT's version for the header, such as ``10.16.1``; other versions ignore the cache.
        algorithm: algorithm name for the header; DLA needs ``EntropyCalibration2``.

    Raises:
        ModelError: there is no Q/DQ, or one that a cache cannot express.
        CacheError: `version` is not a version.
    """
    header = f"TRT-{version_digits(version)}-{algorithm}"
    model = model.clone()
    scales: dict[str, np.float32] = {}
    for node in list(model.graph):
        if node.op_type == "DequantizeLinear":
            _take_out(model.graph, node, scales)
    if not scales:
        raise ModelError(
            "the network has no Q/DQ on activations to make a cache of; give a Q/DQ network."
        )
    remove_unread(model)
    propagated = propagate(model, scales)
    cache = CalibrationCache(
        header, dict(sorted(scales.items())) | {n: s.value for n, s in sorted(propagated.items())}
    )
    entries = [Entry(name, scale, Fate.MATCHED, (name,)) for name, scale in sorted(scales.items())]
    entries += [
        Entry(given.source, given.value, Fate.MAPPED, (name,), given.through)
        for name, given in sorted(propagated.items())
    ]
    return Migration(model, tuple(entries), cache, without_scale=_without_scale(model, cache))


def _take_out(graph: ir.Graph, node: ir.Node, scales: dict[str, np.float32]) -> None:
    source = node.inputs[0]
    assert source is not None
    if is_constant(source):
        _replace(node, _float_constant(graph, node))
        return
    quantize = source.producer()
    if quantize is None or quantize.op_type != "QuantizeLinear":
        raise ModelError(
            f"'{node.name}' has no QuantizeLinear before it; only Q/DQ pairs can be removed."
        )
    value = quantize.inputs[0]
    assert value is not None
    if is_constant(value):  # a float weight that is quantized in the network: keep the float
        _replace(node, value)
        return
    scale = _scalar_scale(node)
    if _scalar_scale(quantize) != scale:
        raise ModelError(f"'{quantize.name}' and '{node.name}' have different scales.")
    if node.outputs[0].is_graph_output() and not value.is_graph_input():
        output = node.outputs[0]
        take_over_output(output, value, aside=f"{output.name}_dequantized")
    _replace(node, value)
    name = value.name or ""
    if scales.setdefault(name, scale) != scale:
        raise ModelError(
            f"the tensor '{name}' is quantized with {scales[name]} and with {scale}; a cache holds one scale "
            "for a tensor."
        )


def _scalar_scale(node: ir.Node) -> np.float32:
    scale = array(node.inputs[1])
    if scale is None or scale.size != 1:
        raise ModelError(f"'{node.name}' has no single constant scale, which a cache needs.")
    zero = array(input_at(node, 2))  # without a zero point ONNX means unsigned
    if zero is None or zero.dtype != np.int8 or zero.any():
        raise ModelError(
            f"'{node.name}' is not symmetric INT8, the only form that a cache can hold."
        )
    content: np.float32 = np.float32(scale.reshape(()))
    return content


def _float_constant(graph: ir.Graph, node: ir.Node) -> ir.Value:
    content = dequantized(node.outputs[0])
    if content is None:
        raise ModelError(f"'{node.name}' has no constant scale.")
    return add_initializer(graph, f"{node.outputs[0].name}_float", content.astype(np.float32))


def _replace(node: ir.Node, value: ir.Value) -> None:
    """Make every reader of the output of `node` read `value`."""
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)


def _without_scale(model: ir.Model, cache: CalibrationCache) -> tuple[str, ...]:
    float_values = (v for v in values_of(model.graph) if v.dtype in (None, ir.DataType.FLOAT))
    return tuple(v.name or "" for v in float_values if v.name not in cache.scales)
