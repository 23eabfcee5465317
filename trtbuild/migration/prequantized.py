"""Takes in a network that is quantized already (QAT, other tools); its scales stay, to the bit.

What TensorRT does not accept is rewritten if that is exact, else refused by name:

    operators on integers           float operators behind Q/DQ (`qoperators`)
    uint8 around 128                int8 around 0
    7 bits with any zero point      a float Clip and int8 around 0 (`narrow_ranges`)
    int32 biases                    float biases
    weights behind Q and DQ         int8 weights behind DQ
    constants that are no weights   floats
    Mul, Div, Add, batch norm       into the layer before: its integers stay, its scales take the factor
    another zero point              left out, with a warning, if no INT8 layer reads the tensor (the
                                    output of a Softmax); else refused: symmetric int8 lacks the steps
    other types, computed scales    refused

Then the network is compared with what TensorRT's rules ask for in its float form
(`trtbuild.quantization.place`). A layer with only its data or only its weight quantized is a gap: TensorRT
runs it in float, or refuses it. A gap is filled with the scale that the tensor has for other readers, with
the weight's own scale, or by calibration.

Source: TensorRT's rules for explicit quantization.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import ModelError
from trtbuild.migration.narrow_ranges import clip_in_float
from trtbuild.migration.qoperators import as_qdq
from trtbuild.model.attributes import attribute, input_at, normal_axis
from trtbuild.model.constants import array
from trtbuild.model.edits import GraphWriter, remove_unread, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import WEIGHTED
from trtbuild.model.qdq import activation_pairs, dequantized, is_qdq, pair_behind, weight_behind
from trtbuild.model.traversal import label, maker, nodes_by_name
from trtbuild.options.optimize import OptimizeOptions
from trtbuild.passes import optimize
from trtbuild.plan import Consumer, PlacementRequest, Plan, symmetric
from trtbuild.quantization.insert import insert
from trtbuild.quantization.placement import place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from trtbuild.plan import Decision, Placement, WeightPoint
    from trtbuild.target import Target

__all__ = ["WIDEN", "Prequantized", "filled", "take_in"]

WIDEN = "make_qdq_symmetric"
"""The pass that makes pairs with another zero point symmetric, which changes their steps."""

_EXACT = ("fold_constants", "make_qdq_signed", "write_qdq_axis")
# QAT leaves operators after a layer (its weight was scaled by the batch norm, which is divided out again).
# They are folded into the scales of its weight; the integers stay.
_INTO_LAYERS = (
    "fold_scale_into_conv", "fold_bias_add", "fold_batch_norm_into_conv",
    "fold_batch_norm_into_gemm", "fold_add_into_gemm",
)  # fmt: skip
_EIGHT_BITS = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
_REMEDY = (
    f"quantize it again symmetrically (int8, zero point 0), or build with --enable {WIDEN}, which widens the "
    "scales"
)
_AS_IT_CAME = "in INT8, as in the given network"


@dataclass(frozen=True)
class Prequantized:
    """A quantized network in TensorRT's form, and what was found in it.

    Attributes:
        model: the network with Q/DQ as TensorRT reads them.
        float_model: the same without Q/DQ, its weights dequantized.
        placement: where TensorRT wants Q/DQ in `float_model`.
        rewritten: operators on integers that were rewritten, and Q whose Clip was moved.
        left_out: tensors whose pair has no symmetric form and was removed, since no INT8 layer reads it.
        gaps: layers with only one side quantized.
        tensors: tensors to calibrate in order to fill the gaps.
        unwanted: tensors whose pair TensorRT's rules do not ask for; they stay.
        decisions: for every node, whether it is in INT8, and why.
    """

    model: ir.Model
    float_model: ir.Model
    placement: Placement
    rewritten: tuple[str, ...]
    left_out: tuple[str, ...]
    gaps: tuple[str, ...]
    tensors: tuple[str, ...]
    unwanted: tuple[str, ...]
    decisions: tuple[Decision, ...]


def take_in(model: ir.Model, target: Target | None = None, *, widen: bool = False) -> Prequantized:
    """Bring a quantized network into TensorRT's form, and compare it with what TensorRT's rules ask for.

    Args:
        model: the network as it was read; it is not changed.
        target: whose rules apply; None for those of what is installed.
        widen: give pairs with another zero point a symmetric scale that covers both their ends.

    Raises:
        ModelError: it holds something that has no exact symmetric INT8 form; the message names it.
    """
    model = model.clone()
    rewritten = (*as_qdq(model), *clip_in_float(model))
    passes = (*_EXACT, *_INTO_LAYERS, *((WIDEN,) if widen else ()))
    model = optimize(model, OptimizeOptions(only=passes, check=False)).model
    _write_floats(model, frozenset({ir.DataType.INT32}))
    remove_unread(model)
    float_model = _without_pairs(model)
    placement = place(float_model, PlacementRequest(target=target))
    left_out = tuple(_leave_out(model, placement))
    wanted = {(point.node, point.index) for point in placement.weights}
    against = _quantized_against(model, {node for node, _ in wanted})
    _write_floats(model, _EIGHT_BITS, frozenset(wanted | {(node, 1) for node in against}))
    remove_unread(model)
    for node in model.graph:
        if is_qdq(node):
            _check_pair(node)
    sides = {point: _sides(model, point) for point in placement.weights}
    for point in placement.weights:
        _check_axis(model, point)
    gaps = [point for point, given in sides.items() if given in ((True, False), (False, True))]
    pairs = activation_pairs(model)
    lacking = {
        name
        for point in gaps
        if not sides[point][0] and (name := _data_of(float_model, point)) not in pairs
    }
    return Prequantized(
        model=model,
        float_model=float_model,
        placement=placement,
        rewritten=rewritten,
        left_out=left_out,
        gaps=tuple(point.node for point in gaps),
        tensors=tuple(sorted(lacking)),
        unwanted=tuple(sorted(_unwanted(model, placement))),
        decisions=tuple(
            _decided(decision, {point.node: sides[point] for point in sides}, against)
            for decision in placement.decisions
        ),
    )


def filled(prequantized: Prequantized, ranges: Mapping[str, float]) -> ir.Model:
    """Return the network with its gaps filled.

    Args:
        prequantized: the network.
        ranges: tensor of `Prequantized.tensors` -> its amax.
    """
    model = prequantized.model.clone()
    nodes, pairs = nodes_by_name(model.graph), activation_pairs(model)
    consumers: dict[str, set[Consumer]] = {}
    weights = []
    for point in prequantized.placement.weights:
        if point.node not in prequantized.gaps:
            continue
        node, name = nodes[point.node], _data_of(prequantized.float_model, point)
        if not _sides(model, point)[1]:
            weights.append(point)
        elif name in pairs:
            node.replace_input_with(0, pairs[name].dequantize.outputs[0])
        else:
            consumers.setdefault(name, set()).add(Consumer(point.node, 0))
    plan = Plan(
        {name: frozenset(readers) for name, readers in consumers.items()},
        tuple(weights),
        {name: symmetric(ranges[name]) for name in consumers},
    )
    return insert(model, plan)


def _write_floats(
    model: ir.Model,
    types: frozenset[ir.DataType],
    weights: frozenset[tuple[str, int]] = frozenset(),
) -> None:
    """Replace constants behind a DQ by the floats that they stand for.

    Args:
        model: changed in place.
        types: types of the constants.
        weights: (node, input) of the readers that keep the integers.
    """
    writer = GraphWriter(model)
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if source is None or array(source) is None or source.dtype not in types:
            continue
        output = node.outputs[0]
        readers = [use for use in output.uses() if (use.node.name or "", use.idx) not in weights]
        content = dequantized(output)
        if content is None or output.is_graph_output() or not readers:
            continue
        plain = writer.constant(f"{output.name}_float", content)
        for use in readers:
            use.node.replace_input_with(use.idx, plain)


def _leave_out(model: ir.Model, placement: Placement) -> Iterator[str]:
    """Remove pairs with another zero point that TensorRT does not ask for; yield their tensors."""
    writer = GraphWriter(model)
    for node in [node for node in model.graph if node.op_type == "QuantizeLinear"]:
        source, zero = node.inputs[0], array(input_at(node, 2))
        symmetric_zero = zero is not None and zero.dtype == np.int8 and not zero.any()
        if source is None or symmetric_zero or source.name in placement.consumers:
            continue
        yield source.name or ""
        for reader in node.outputs[0].consumers():
            output = reader.outputs[0]
            if output.is_graph_output():
                _pass_on(output, source, writer)
            output.replace_all_uses_with(source)
    remove_unread(model)


def _check_pair(node: ir.Node) -> None:
    """Check that TensorRT can read a Q or DQ: constant scales above zero, int8, zero point 0."""
    where = f"the {node.op_type} '{label(node)}'"
    scale, given = array(node.inputs[1]), input_at(node, 2)
    zero = array(given)
    if scale is None or (given is not None and zero is None):
        raise ModelError(
            f"the scale or the zero point of {where} is computed; TensorRT takes constants."
        )
    if not (np.isfinite(scale.astype(np.float64)) & (scale > 0)).all():
        raise ModelError(f"{where} has a scale that is not above zero; quantize the network again.")
    if attribute(node, "block_size", 0):
        raise ModelError(
            f"{where} has scales of blocks; INT8 of TensorRT takes one a tensor or channel."
        )
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if zero is None and node.op_type == "DequantizeLinear":
        source = node.inputs[0]
        dtype = dtype if source is None or source.dtype is None else source.dtype.numpy()
    if dtype != np.int8:
        what = f"is of {dtype} with the zero point {0 if zero is None else _first(zero)}"
        raise ModelError(
            f"{where} {what}, which has no symmetric INT8 form of the same steps; {_REMEDY}."
        )
    if zero is not None and zero.any():
        what = f"has the zero point {_first(zero[zero != 0])}"
        raise ModelError(
            f"{where} {what}, which has no symmetric INT8 form of the same steps; {_REMEDY}."
        )


def _first(array_of: np.ndarray) -> int:
    return int(array_of.reshape(-1)[0])


def _without_pairs(model: ir.Model) -> ir.Model:
    """Return a copy of `model` without Q/DQ: activations as they are, weights dequantized.

    Raises:
        ModelError: integers go anywhere but from a Q to a DQ, or are an output of the network.
    """
    model = model.clone()
    writer = GraphWriter(model)
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear":
            continue
        output, source = node.outputs[0], maker(node.inputs[0], "QuantizeLinear")
        if source is not None:
            plain = source.inputs[0]
            assert plain is not None
        else:
            content = dequantized(output)
            if content is None:
                raise ModelError(
                    f"the integers that '{label(node)}' dequantizes come from no QuantizeLinear and are not "
                    "constant; there is no float form of this network."
                )
            plain = writer.constant(f"{output.name}_float", content)
        if output.is_graph_output():
            _pass_on(output, plain, writer)
        output.replace_all_uses_with(plain)
    remove_unread(model)
    left = next((node for node in model.graph if is_qdq(node)), None)
    if left is not None:
        raise ModelError(
            f"the integers of the {left.op_type} '{label(left)}' are an output, or are read by another "
            "operator than DequantizeLinear; TensorRT accepts only Q/DQ pairs."
        )
    return model


def _pass_on(output: ir.Value, plain: ir.Value, writer: GraphWriter) -> None:
    """Make `plain` the network output in place of the pair's output."""
    if plain.producer() is None or plain.is_graph_output():
        raise ModelError(
            f"the output '{output.name}' is an input or another output with only Q/DQ between."
        )
    take_over_output(output, plain, aside=writer.fresh(f"{output.name}_pair"))


def _sides(model: ir.Model, point: WeightPoint) -> tuple[bool, bool]:
    """Whether a layer's data and its weight are quantized."""
    node = nodes_by_name(model.graph)[point.node]
    data = pair_behind(node.inputs[0]) is not None
    return data, weight_behind(node.inputs[point.index]) is not None


def _check_axis(model: ir.Model, point: WeightPoint) -> None:
    """Check that per-channel scales run along the axis that TensorRT expects."""
    node = nodes_by_name(model.graph)[point.node]
    dequantize = maker(node.inputs[point.index], "DequantizeLinear")
    scale = None if dequantize is None else array(dequantize.inputs[1])
    if dequantize is None or scale is None or scale.size == 1 or point.axis is None:
        return
    content = array(dequantize.inputs[0])
    assert content is not None
    axis = normal_axis(int(attribute(dequantize, "axis", 1)), content.ndim)
    if axis != point.axis:
        raise ModelError(
            f"the weight of {node.op_type} '{point.node}' has scales along axis {axis}, and TensorRT takes "
            f"them along axis {point.axis}, the output channels; quantize it again per channel."
        )


def _data_of(float_model: ir.Model, point: WeightPoint) -> str:
    value = nodes_by_name(float_model.graph)[point.node].inputs[0]
    assert value is not None
    return value.name or ""


def _unwanted(model: ir.Model, placement: Placement) -> Iterator[str]:
    """The tensors with a pair that TensorRT's rules do not ask for."""
    wanted = placement.consumers
    for name in activation_pairs(model):
        if name not in wanted:
            yield name


def _quantized_against(model: ir.Model, wanted: Collection[str]) -> frozenset[str]:
    """The layers with both sides quantized that TensorRT's rules would leave in float."""
    return frozenset(
        node.name or ""
        for node in model.graph
        if node.op_type in WEIGHTED
        and node.name not in wanted
        and pair_behind(node.inputs[0]) is not None
        and weight_behind(node.inputs[1]) is not None
    )


def _decided(
    decision: Decision, sides: Mapping[str, tuple[bool, bool]], against: Collection[str]
) -> Decision:
    given = sides.get(decision.node)
    if decision.node in against:
        reason = f"{_AS_IT_CAME}, though {decision.reason}"
        return replace(decision, int8=True, reason=reason)
    if given is None:
        return replace(decision, int8=False, reason=_other(decision))
    if given == (True, True):
        return replace(decision, int8=True, reason=_AS_IT_CAME)
    if given == (False, False):
        return replace(decision, int8=False, reason="in float, as in the given network")
    side = "weight" if given[0] else "data"
    return replace(decision, int8=True, reason=f"its {side} was float, and got a scale here")


def _other(decision: Decision) -> str:
    return decision.reason if not decision.int8 else "as the network came"
