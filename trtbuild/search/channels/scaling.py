"""Brings the channels of a tensor to one range: scales, or scales and shifts, them before rounding.

    u = (x - shift) / scale          is rounded, with one INT8 scale for all channels
    W x + b  =  (W scale) u + (b + W shift)

Up to rounding, the network computes the same whatever computes x, so also after SiLU, hard-swish, GELU and
residual sums, where cross-layer equalization stops. After a Clip that stays (ReLU6), this holds for inputs
whose channels stay below the values seen; INT8 clips the others anyway. If operators before x can compute u
instead (`sites`), scaling costs nothing at run time. Otherwise a Mul (and an Add) is inserted for the INT8
layers alone, which TensorRT fuses into one pointwise kernel with its neighbours: Q stays directly before the
layers, the Mul is no INT8 layer, and other readers keep x.

Scaling makes weights round worse while activations round better, so each tensor is judged by itself
(`choice`). The weights of depthwise convolutions have a scale per input channel and lose nothing. A shift is
for one-sided tensors: the outputs of SiLU, hard-swish and GELU are never below -0.4, so a symmetric scale
leaves almost half of its steps unused. It needs readers that do not pad.

Sources: Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019 (scales moved between layers); Xiao et al., "SmoothQuant", 2022 (scales from the
activations, with a strength); Wei et al., "Outlier Suppression+", 2023 (shift and scale of each channel).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.attributes import attribute, constant_of
from trtbuild.model.edits import GraphWriter
from trtbuild.model.traversal import nodes_by_name, values_by_name
from trtbuild.search.channels.sites import added_behind, is_transposed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.search.channels.sites import Absorber, Site

    Channels = NDArray[np.float64]

__all__ = ["Rescaling", "rescaled"]


@dataclass(frozen=True)
class Rescaling:
    """Scale and shift of one site, whose readers read ``(x - shift) / scale``.

    Attributes:
        site: the tensor and its readers.
        scale: float64 ``[channels]``, above zero.
        shift: float64 ``[channels]``, zeros if the site is not shiftable.
    """

    site: Site
    scale: Channels
    shift: Channels

    @property
    def is_free(self) -> bool:
        """Whether it costs nothing at run time."""
        return self.site.is_free and (self.site.absorbs_shift or not self.shift.any())


def rescaled(model: ir.Model, changes: Sequence[Rescaling]) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy of `model` with every site of `changes` rescaled, in the order given.

    Returns:
        The network; and the tensor of each site -> the tensor that its readers read now, which has the same
        name if operators before it absorb the change.
    """
    model = model.clone()
    writer = GraphWriter(model)
    nodes = nodes_by_name(model.graph)
    values = values_by_name(model.graph)
    read: dict[str, str] = {}
    for change in changes:
        site = change.site
        readers = [nodes[name] for name in site.readers]
        if change.is_free:
            for absorber in site.absorbers:
                takes_shift = absorber is site.absorbers[-1]
                _absorb(writer, nodes[absorber.node], absorber, change, takes_shift)
            read[site.tensor] = site.tensor
        else:
            new = _inserted(writer, values[site.tensor], change)
            for reader in readers:
                reader.replace_input_with(0, new)
            read[site.tensor] = new.name or ""
        for reader in readers:
            _take_back(writer, reader, change)
    return model, read


def _inserted(writer: GraphWriter, value: ir.Value, change: Rescaling) -> ir.Value:
    """Insert Mul, Add or both after `value`; return the result."""
    rank = _rank(value, change.site)
    made = value
    name = value.name or ""
    if not np.array_equal(change.scale, np.ones_like(change.scale)):
        factor = _along(1.0 / change.scale, rank, change.site.axis)
        made = writer.with_constant("Mul", made, factor, f"{name}_scaled")
    if change.shift.any():
        offset = _along(-change.shift / change.scale, rank, change.site.axis)
        made = writer.with_constant("Add", made, offset, f"{name}_shifted")
    return made


def _rank(value: ir.Value, site: Site) -> int:
    if site.axis == -1:
        return 1
    if value.shape is not None:
        return len(value.shape)
    weight = next(use.node.inputs[1] for use in value.uses() if use.node.name in site.readers)
    assert weight is not None
    assert weight.shape is not None
    return len(weight.shape)


def _along(channels: Channels, rank: int, axis: int) -> Channels:
    """`channels` in a shape that broadcasts along the axis: ``[channels, 1, ...]`` after the batch axis."""
    return channels.reshape(-1, *[1] * (rank - 2)) if axis == 1 else channels


def _absorb(
    writer: GraphWriter,
    node: ir.Node,
    absorber: Absorber,
    change: Rescaling,
    takes_shift: bool,
) -> None:
    """Make `node` compute ``(y - shift) / scale`` in place of y; ``y / scale`` without `takes_shift`."""
    inverse = 1.0 / change.scale
    shift = change.shift if takes_shift else np.zeros_like(change.shift)
    match absorber.kind:
        case "weights":
            _scale_outputs(writer, node, inverse, shift)
        case "norm":
            scale, bias = constant_of(node, 1), constant_of(node, 2)
            assert scale is not None
            writer.set_constant(node, 1, scale * inverse, "rescaled")
            if bias is not None or shift.any():
                bias = np.zeros_like(scale) if bias is None else bias
                writer.set_constant(node, 2, (bias - shift) * inverse, "rescaled")
        case "gate":
            gate = node.inputs[absorber.index]
            assert gate is not None
            along = _along(inverse, len(gate.shape or ()), 1)
            scaled = writer.with_constant("Mul", gate, along, f"{gate.name}_scaled")
            node.replace_input_with(absorber.index, scaled)
        case kind:
            output = node.outputs[0]
            assert change.site.axis == -1 or output.shape is not None
            axis = change.site.axis
            rank = len(output.shape or ())
            old = constant_of(node, absorber.index)
            assert old is not None
            along = _along(inverse, rank, axis)
            if kind == "addend":
                new = (old - _along(shift, rank, axis)) * along
            else:
                new = old * along if kind == "factor" else old / along
            constant = writer.constant(f"{node.name}_by_channel", _typed(new, output))
            node.replace_input_with(absorber.index, constant)


def _typed(content: np.ndarray, like: ir.Value) -> np.ndarray:
    return content.astype(np.float32 if like.dtype is None else like.dtype.numpy())


def _scale_outputs(writer: GraphWriter, node: ir.Node, factors: Channels, shift: Channels) -> None:
    weight, bias = constant_of(node, 1), constant_of(node, 2)
    assert weight is not None
    by_row = node.op_type == "Conv" or is_transposed(node)
    shape = [-1 if i == (0 if by_row else 1) else 1 for i in range(weight.ndim)]
    writer.set_constant(node, 1, weight * factors.reshape(shape), "rescaled")
    if bias is not None or shift.any():
        bias = np.zeros(len(factors)) if bias is None else bias
        writer.set_constant(node, 2, (bias - shift) * factors, "rescaled")


def _take_back(writer: GraphWriter, node: ir.Node, change: Rescaling) -> None:
    """Undo `scale` in the weights of a reader and `shift` in its bias."""
    weight = constant_of(node, 1)
    assert weight is not None
    scale = _along_inputs(node, weight, change.scale)
    if change.shift.any():
        shift = (weight * _along_inputs(node, weight, change.shift)).sum(
            axis=_input_axes(node, weight)
        )
        _add_to_bias(writer, node, shift)
    writer.set_constant(node, 1, weight * scale, "rescaled")


def _along_inputs(node: ir.Node, weight: np.ndarray, channels: Channels) -> np.ndarray:
    """A value for each input channel in a shape that broadcasts over the weight."""
    if node.op_type != "Conv":
        return channels[None, :] if is_transposed(node) else channels[:, None]
    # weight [out, in / groups, ...]: output channel o reads input channels of its own group
    groups = int(attribute(node, "group", 1))
    outputs, inputs = weight.shape[:2]
    per_output = np.repeat(channels.reshape(groups, inputs), outputs // groups, axis=0)
    return per_output.reshape(outputs, inputs, *[1] * (weight.ndim - 2))


def _input_axes(node: ir.Node, weight: np.ndarray) -> tuple[int, ...]:
    if node.op_type == "Conv":
        return tuple(range(1, weight.ndim))
    return (1,) if is_transposed(node) else (0,)


def _add_to_bias(writer: GraphWriter, node: ir.Node, added: np.ndarray) -> None:
    index = 2
    if node.op_type == "MatMul":
        behind = added_behind(node)
        assert behind is not None
        node, index = behind
    old = constant_of(node, index)
    writer.set_constant(node, index, added if old is None else old + added, "rescaled")
