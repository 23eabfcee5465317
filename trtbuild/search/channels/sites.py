"""Finds tensors whose channels can be scaled to one range, and the operators that can absorb the scale.

A site is a tensor that INT8 layers read, with the axis of its channels. The layers read
``u = (x - shift) / scale``, rounded, instead of x; their weights undo ``scale``, and their biases ``shift``:

    W x + b  =  (W scale) u + (b + W shift)

Three kinds of operators before x can compute u in place of x, so that no operator is inserted:

    layers       Conv, Gemm or MatMul with constant weights, also through operators f with
                 ``f(y / s) = f(y) / s`` (Relu, LeakyRelu, pooling, Add of a constant): the scale goes
                 into their weights and biases, as in cross-layer equalization. A Clip from 0 (ReLU6)
                 is not changed: no channel may be scaled up beyond its limit
    constants    Mul or Div by a constant (as in hard-swish and GELU), LayerNormalization
    gates        Mul by one value per channel (squeeze-and-excitation): the gate, of one pixel, is scaled

Either factor of a product can absorb the scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.model.attributes import attribute, constant_of, input_at
from trtbuild.model.constants import array, is_constant
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.traversal import flattens_one_pixel, values_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["Absorber", "Site", "find_sites", "input_channels", "is_transposed"]

_HOMOGENEOUS = frozenset(
    {"AveragePool", "Dropout", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Relu"}
)
_KEEP_SHIFTS = frozenset({"Dropout", "Identity"})
# The largest value that these operators read is in their output, too (or in no window of a pool): so the
# largest value seen at the site is that of the Clip before them.
_KEEP_MAXIMA = frozenset({"Dropout", "Identity", "LeakyRelu", "MaxPool", "Relu"})


@dataclass(frozen=True)
class Absorber:
    """An operator before a site that absorbs ``1 / scale``.

    Attributes:
        node: its name.
        kind: ``weights``, ``factor``, ``divisor``, ``addend``, ``norm`` or ``gate``.
        index: input index of the constant operand, or of the gate.
    """

    node: str
    kind: str
    index: int = 1


@dataclass(frozen=True)
class Site:
    """A tensor, and the INT8 layers that read it along the same channel axis.

    Attributes:
        tensor: name of the tensor.
        axis: its channel axis: 1 before convolutions, -1 before Gemm and MatMul.
        channels: number of channels.
        readers: names of the layers.
        absorbers: operators that absorb the scale at no cost; empty if a Mul has to be inserted.
        absorbs_shift: whether the absorbers can absorb a shift, too.
        shiftable: whether the readers allow a shift: they do not pad, and have a bias or can get one.
        limit: upper limit of a Clip before the tensor, beyond which no channel may be scaled up; None
            without a Clip.
    """

    tensor: str
    axis: int
    channels: int
    readers: tuple[str, ...]
    absorbers: tuple[Absorber, ...]
    absorbs_shift: bool
    shiftable: bool
    limit: float | None = None

    @property
    def is_free(self) -> bool:
        """Whether a scale costs nothing at run time."""
        return bool(self.absorbers)


def find_sites(model: ir.Model, layers: Collection[str]) -> tuple[Site, ...]:
    """Return the sites of the main graph, in its order.

    Args:
        model: the float network.
        layers: names of the layers in INT8.
    """
    return tuple(
        site
        for value in values_of(model.graph)
        if not is_constant(value)
        for axis in (1, -1)
        if (site := _site(value, axis, layers)) is not None
    )


def _site(value: ir.Value, axis: int, layers: Collection[str]) -> Site | None:
    users = [
        use.node
        for use in value.uses()
        if use.idx == 0 and use.node.name in layers and _axis_read(use.node) == axis
    ]
    sizes = {input_channels(user) for user in users}
    if len(sizes) != 1 or not value.name:
        return None
    readers = tuple(dict.fromkeys(user.name or "" for user in users))
    alone = len(value.uses()) == len(users) and not value.is_graph_output()
    channels = sizes.pop()
    along = _Along(axis, channels)
    clipped, limit = _in_front_of_clip(value)
    absorbers, takes_shift = _absorbers(clipped, along) if alone else _NOTHING
    return Site(
        value.name,
        axis,
        channels,
        readers,
        absorbers,
        absorbs_shift=takes_shift and limit is None,
        shiftable=all(_takes_shift(user) for user in users),
        limit=limit if absorbers else None,
    )


def _in_front_of_clip(value: ir.Value) -> tuple[ir.Value, float | None]:
    """The input of a Clip from 0 that `value` comes from, and its upper limit; else `value` and None."""
    source = value
    while (node := source.producer()) is not None and node.domain in ONNX_DOMAINS:
        before = node.inputs[0] if node.inputs else None
        if before is None or not _is_read_once(before):
            break
        if node.op_type == "Clip":
            limit = _upper_limit(node)
            return (value, None) if limit is None else (before, limit)
        if node.op_type not in _KEEP_MAXIMA:
            break
        source = before
    return value, None


def _upper_limit(clip: ir.Node) -> float | None:
    low, high = constant_of(clip, 1), constant_of(clip, 2)
    if low is None or high is None or float(low) != 0.0:
        return None
    return float(high) if 0.0 < float(high) < math.inf else None


def _axis_read(node: ir.Node) -> int | None:
    """The axis of the data input that has the weight's input channels; None if the layer is no candidate."""
    if node.domain not in ONNX_DOMAINS or not is_constant(input_at(node, 1)):
        return None
    if node.op_type == "Conv":
        return 1
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and not attribute(node, "transA", 0)
        return -1 if plain else None
    if node.op_type == "MatMul":
        weight = array(node.inputs[1])
        return -1 if weight is not None and weight.ndim == 2 else None
    return None


def input_channels(node: ir.Node) -> int:
    """Return how many channels a Conv, Gemm or MatMul with a constant weight reads."""
    weight = array(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        return int(weight.shape[1]) * int(attribute(node, "group", 1))
    return int(weight.shape[1 if is_transposed(node) else 0])


def output_channels(node: ir.Node) -> int:
    """Return how many channels the output of a Conv, Gemm or MatMul with a constant weight has."""
    weight = array(node.inputs[1])
    assert weight is not None
    return int(weight.shape[0 if node.op_type == "Conv" or is_transposed(node) else 1])


def is_transposed(node: ir.Node) -> bool:
    """Return whether a Gemm takes the transpose of its weight, so that each row is an output channel."""
    return node.op_type == "Gemm" and bool(attribute(node, "transB", 0))


def _takes_shift(node: ir.Node) -> bool:
    """Whether a shift of a layer's input changes its output by a constant, which its bias can undo."""
    if node.op_type == "MatMul":
        return added_behind(node) is not None
    bias = input_at(node, 2)
    if bias is not None and not is_constant(bias):
        return False
    if node.op_type == "Gemm":
        return bool(attribute(node, "beta", 1.0) == 1.0)
    pads = attribute(node, "pads", ())
    return attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(pads)


def added_behind(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the Add of a constant that is a MatMul's only reader, with the constant's input index."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    user = uses[0].node
    if user.op_type != "Add" or user.domain not in ONNX_DOMAINS:
        return None
    index = 1 - uses[0].idx
    return (user, index) if is_constant(user.inputs[index]) else None


@dataclass(frozen=True)
class _Along:
    """The channels to scale: their axis, and how many."""

    axis: int
    channels: int


_Absorbed = tuple[tuple[Absorber, ...], bool]
"""The absorbers of a tensor's scale, and whether the last of them can absorb a shift, too."""

_NOTHING: _Absorbed = ((), False)


def _absorbers(value: ir.Value, along: _Along) -> _Absorbed:
    """The absorbers of the scale of `value`, which has no other reader."""
    node = value.producer()
    if node is None or node.domain not in ONNX_DOMAINS or len(node.outputs) != 1:
        return _NOTHING
    if _gives_channels(node, along):
        return (Absorber(node.name or "", "weights"),), node.op_type != "MatMul"
    if node.op_type in _HOMOGENEOUS:
        return _behind(node, along, keeps_shift=node.op_type in _KEEP_SHIFTS)
    if flattens_one_pixel(node):
        return _behind(node, replace(along, axis=1), keeps_shift=False)
    if node.op_type == "LayerNormalization":
        absorber = Absorber(node.name or "", "norm")
        return ((absorber,), True) if _normalises_channels(node, along) else _NOTHING
    return _elementwise(node, along)


def _behind(node: ir.Node, along: _Along, *, keeps_shift: bool) -> _Absorbed:
    source = node.inputs[0]
    if source is None or not _is_read_once(source):
        return _NOTHING
    found, takes_shift = _absorbers(source, along)
    return found, takes_shift and keeps_shift


def _normalises_channels(node: ir.Node, along: _Along) -> bool:
    last, shape = attribute(node, "axis", -1), node.outputs[0].shape
    is_last = last == -1 or (shape is not None and last == len(shape) - 1)
    constants = [array(value) for value in node.inputs[1:] if value is not None]
    fit = all(one is not None and one.shape == (along.channels,) for one in constants)
    return bool(along.axis == -1 and is_last and fit)


def _elementwise(node: ir.Node, along: _Along) -> _Absorbed:
    if node.op_type not in ("Add", "Div", "Mul") or len(node.inputs) != 2:
        return _NOTHING
    constants = [index for index, value in enumerate(node.inputs) if is_constant(value)]
    if len(constants) == 1 and (along.axis == -1 or node.outputs[0].shape is not None):
        return _with_constant(node, constants[0], along)
    if node.op_type == "Mul" and not constants:
        for value in node.inputs:
            found, _ = _absorbers(value, along) if value and _is_read_once(value) else _NOTHING
            if found:
                return found, False
    gates = [index for index, value in enumerate(node.inputs) if _is_gate(value)]
    if node.op_type == "Mul" and len(gates) == 1 and along.axis == 1:
        return (Absorber(node.name or "", "gate", gates[0]),), False
    return _NOTHING


def _with_constant(node: ir.Node, index: int, along: _Along) -> _Absorbed:
    name = node.name or ""
    if node.op_type == "Mul":
        return (Absorber(name, "factor", index),), False
    if node.op_type == "Div":
        return ((Absorber(name, "divisor", index),), False) if index == 1 else _NOTHING
    source = node.inputs[1 - index]
    found, _ = _absorbers(source, along) if source and _is_read_once(source) else _NOTHING
    return ((*found, Absorber(name, "addend", index)), True) if found else _NOTHING


def _gives_channels(node: ir.Node, along: _Along) -> bool:
    """Whether `node` is a layer with these output channels, and with constant weight and bias."""
    if _axis_read(node) != along.axis or output_channels(node) != along.channels:
        return False
    bias = input_at(node, 2)
    return bias is None or (is_constant(bias) and attribute(node, "beta", 1.0) == 1.0)


def _is_read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_gate(value: ir.Value | None) -> bool:
    if value is None or value.shape is None or len(value.shape) < 3 or is_constant(value):
        return False
    dims = list(value.shape)
    return dims[1] != 1 and all(dim == 1 for dim in dims[2:])
