"""The groups of a Q/DQ file: a quantized layer with all activations and weights that it reads through Q/DQ.

A group is the unit that can be float or INT8 by itself. A Q/DQ pair with several readers stays for those
that remain INT8; data movement and Concat read floats once no INT8 layer follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.model.attributes import input_at
from trtbuild.model.constants import constant_tensor
from trtbuild.model.edits import add_initializer, remove_unread, take_over_output
from trtbuild.model.operators import AVERAGING, WEIGHTED, moves_values
from trtbuild.model.qdq import (
    activation_pairs,
    behind_activation,
    float_twins,
    is_qdq,
    pair_behind,
    quantized_nodes,
    weight_behind,
)
from trtbuild.model.stats import node_macs
from trtbuild.plan import Consumer, Group, GroupKind

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["find_groups", "with_float", "with_pair_only", "with_weights_only", "without_pair"]


def find_groups(quantized: ir.Model) -> tuple[Group, ...]:
    """Return the groups of a Q/DQ network of any tool, in the network's order.

    Raises:
        OptionError: nothing in it reads Q/DQ.
    """
    groups = tuple(_group(n) for n in quantized_nodes(quantized) if n.op_type != "Concat")
    if not groups:
        raise OptionError("no layer of this network reads Q/DQ; there is nothing to search.")
    return groups


def _group(node: ir.Node) -> Group:
    name = node.name or ""
    pairs = [index for index, value in enumerate(node.inputs) if pair_behind(value) is not None]
    return Group(
        name,
        node.op_type,
        _kind(node.op_type),
        frozenset(Consumer(name, index) for index in pairs),
        int8=True,
        reason="it reads through Q/DQ in the file",
        macs=node_macs(node),
    )


def _kind(op_type: str) -> GroupKind:
    if op_type in WEIGHTED:
        return GroupKind.LAYER
    if op_type in AVERAGING:
        return GroupKind.POOL
    return GroupKind.SKIP_BRANCH if op_type == "Add" else GroupKind.KERNEL


def with_float(quantized: ir.Model, reference: ir.Model, names: Collection[str]) -> ir.Model:
    """Return a copy of `quantized` in which the groups `names` compute in float.

    Their weights are taken from `reference` if it has a node of that name; else the dequantized weights
    stay.

    Raises:
        OptionError: there is no group of a name.
    """
    model = quantized.clone()
    nodes = {node.name: node for node in quantized_nodes(model)}
    if unknown := sorted(set(names) - set(nodes)):
        raise OptionError(f"'{unknown[0]}' is not a layer that reads Q/DQ.")
    twins = float_twins(model, reference)
    for name in names:
        _make_float(model.graph, nodes[name], twins.get(name))
    _free_outputs(model.graph, {behind_activation(nodes[name].outputs[0]) for name in names})
    for node in reversed(model.graph):
        if moves_values(node) or node.op_type == "Concat":
            _read_float_unless_wanted(node)
    remove_unread(model)
    return model


def without_pair(quantized: ir.Model, tensor: str) -> ir.Model:
    """Return a copy of `quantized` in which all readers of `tensor` read floats; nothing else changes."""
    model = quantized.clone()
    _drop_pairs(model, {tensor})
    return model


def with_pair_only(quantized: ir.Model, reference: ir.Model, tensor: str) -> ir.Model:
    """Return a copy of `quantized` with only the Q/DQ pair of `tensor`.

    Weights are taken from `reference`, as in `with_float`.
    """
    model = quantized.clone()
    twins = float_twins(model, reference)
    for node in list(quantized_nodes(model)):
        _give_float_weights(model.graph, node, twins.get(node.name or ""))
    _drop_pairs(model, set(activation_pairs(model)) - {tensor})
    return model


def with_weights_only(quantized: ir.Model) -> ir.Model:
    """Return a copy of `quantized` with only its weights in INT8: activations lose their Q/DQ pairs."""
    model = quantized.clone()
    _drop_pairs(model, set(activation_pairs(model)))
    return model


def _drop_pairs(model: ir.Model, tensors: Collection[str]) -> None:
    for node in model.graph:
        pair = pair_behind(node.outputs[0])
        if pair is None or pair.source.name not in tensors:
            continue
        output = node.outputs[0]
        if output.is_graph_output() and not pair.source.is_graph_input():
            take_over_output(output, pair.source, aside=f"{output.name}__quantized")
        output.replace_all_uses_with(pair.source)
    remove_unread(model)


def _make_float(graph: ir.Graph, node: ir.Node, twin: ir.Node | None) -> None:
    for index, value in enumerate(node.inputs):
        pair = pair_behind(value)
        if pair is not None:
            node.replace_input_with(index, pair.source)
    _give_float_weights(graph, node, twin)


def _give_float_weights(graph: ir.Graph, node: ir.Node, twin: ir.Node | None) -> None:
    for index, value in enumerate(node.inputs):
        if twin is not None and weight_behind(value) is not None:
            original = input_at(twin, index)
            tensor = constant_tensor(original)
            if original is not None and tensor is not None:
                name = f"{original.name}__float"
                node.replace_input_with(index, _float_constant(graph, name, tensor))


def _float_constant(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    if name not in graph.initializers:
        return add_initializer(graph, name, tensor)
    return graph.initializers[name]


def _free_outputs(graph: ir.Graph, computed: Collection[ir.Value]) -> None:
    """Remove the Q/DQ pair before an output if its values are computed by one of `computed`."""
    for output in list(graph.outputs):
        pair = pair_behind(output)
        if pair is not None and _origin(pair.source) in computed:
            take_over_output(output, pair.source, aside=f"{output.name}__quantized")


def _origin(value: ir.Value) -> ir.Value:
    """The tensor whose values `value` holds, before Q/DQ pairs and data movement."""
    while True:
        pair, producer = pair_behind(value), value.producer()
        if pair is not None:
            value = pair.source
        elif producer is not None and moves_values(producer) and producer.inputs[0] is not None:
            value = producer.inputs[0]
        else:
            return value


def _read_float_unless_wanted(node: ir.Node) -> None:
    readers = [use.node for output in node.outputs for use in output.uses()]
    if any(_is_quantized_for_somebody(reader) for reader in readers):
        return
    for index, value in enumerate(node.inputs):
        pair = pair_behind(value)
        if pair is not None:
            node.replace_input_with(index, pair.source)


def _is_quantized_for_somebody(reader: ir.Node) -> bool:
    """Whether `reader` is a Q whose pair still has readers; pairs without readers are removed later."""
    if not is_qdq(reader):
        return False
    pairs = [use.node.outputs[0] for use in reader.outputs[0].uses()]
    return any(pair.uses() or pair.is_graph_output() for pair in pairs)
