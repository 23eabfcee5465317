"""Where Q/DQ go for TensorRT: the rules of explicit quantization.

1. Every data input of a selected Conv, ConvTranspose, Gemm or MatMul reads through Q/DQ; so does its
   weight. Outputs carry none: the consumer's pair is enough, and Conv + activation stays one kernel.
2. A residual Add that adds the output of a selected node to something else reads only that something
   (the skip branch) through Q/DQ, so that Conv + Add (+ Relu) becomes one INT8 kernel. When both sides
   come from such nodes, the side with the longer path behind it is the main one.
3. Data movement (Reshape, Slice, MaxPool, ...) whose readers are all quantized reads through Q/DQ of the
   same scale; so does every input of a Concat. Then TensorRT moves Q up and no copy is made. Where
   somebody reads the moved values in float, Q/DQ stay behind the movement, and nothing is rounded for them.
4. Average pooling between two quantized layers reads through a pair of its own, for it computes.
5. Biases and everything else stay float.

Source: NVIDIA's TensorRT developer guide, "Explicit quantization" and "Q/DQ layer-placement
recommendations"; NVIDIA Model Optimizer's INT8 placement for rules 2 to 4.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant
from trtbuild.model.operators import AVERAGING, moves_values, weight_axis
from trtbuild.plan import Consumer, Decision, Placement, WeightPoint
from trtbuild.quantization.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

__all__ = ["place"]

_FUSED_WITH_ADD = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def place(model: ir.Model, float_patterns: Sequence[str] = ()) -> Placement:
    """Place Q/DQ on the main graph of `model`; bodies of If and Loop are left alone.

    Raises:
        OptionError: a pattern of `float_patterns` matches no node.
    """
    decisions = select(model, float_patterns)
    consumers: dict[str, set[Consumer]] = defaultdict(set)
    weights = []
    for node in _selected(model, decisions):
        consumers[_name(node.inputs[0])].add(Consumer(node.name or "", 0))
        weights.append(_weight_point(node))
    _add_skip_branches(model, decisions, consumers)
    _add_pools(model, decisions, consumers)
    roots = _follow_values(model, consumers)
    reasons = {**decisions, **_others(model, decisions, consumers)}
    return Placement(
        {name: frozenset(readers) for name, readers in consumers.items()},
        tuple(weights),
        roots,
        tuple(reasons[node.name or ""] for node in model.graph),
    )


def _selected(model: ir.Model, decisions: Mapping[str, Decision]) -> Iterator[ir.Node]:
    for node in model.graph:
        decision = decisions.get(node.name or "")
        if decision is not None and decision.quantized:
            yield node


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _weight_point(node: ir.Node) -> WeightPoint:
    weight = node.inputs[1]
    rank = len(weight.shape) if weight is not None and weight.shape is not None else 0
    return WeightPoint(node.name or "", 1, weight_axis(node, rank))


def _add_skip_branches(
    model: ir.Model, decisions: dict[str, Decision], consumers: dict[str, set[Consumer]]
) -> None:
    depth = _depths(model)
    for node in model.graph:
        if node.op_type != "Add" or node.domain or any(is_constant(v) for v in node.inputs):
            continue
        main = [i for i, value in enumerate(node.inputs) if _fuses(value, decisions)]
        if not main:
            continue
        kept = max(main, key=lambda i: (depth[_producer_name(node.inputs[i])], -i))
        skip = node.inputs[1 - kept]
        if skip is not None and skip is not node.inputs[kept]:
            consumers[_name(skip)].add(Consumer(node.name or "", 1 - kept))
            decisions[node.name or ""] = Decision(
                node.name or "",
                "Add",
                quantized=True,
                reason="residual: the skip branch through Q/DQ",
            )


def _fuses(value: ir.Value | None, decisions: Mapping[str, Decision]) -> bool:
    """Whether `value` comes from a quantized layer and from there goes into this Add alone."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type not in _FUSED_WITH_ADD or value is None:
        return False
    decision = decisions.get(producer.name or "")
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return decision is not None and decision.quantized and alone


def _producer_name(value: ir.Value | None) -> str:
    producer = value.producer() if value is not None else None
    return producer.name or "" if producer is not None else ""


def _depths(model: ir.Model) -> dict[str, int]:
    """Length of the longest path from an input to each node."""
    depth: dict[str, int] = {"": 0}
    for node in model.graph:
        depth[node.name or ""] = 1 + max((depth[_producer_name(v)] for v in node.inputs), default=0)
    return depth


def _add_pools(
    model: ir.Model, decisions: dict[str, Decision], consumers: dict[str, set[Consumer]]
) -> None:
    for node in model.graph:
        if node.op_type not in AVERAGING or not _reaches_quantized(node.outputs[0], consumers):
            continue
        if _comes_from_quantized(node.inputs[0], decisions, consumers):
            consumers[_name(node.inputs[0])].add(Consumer(node.name or "", 0))
            decisions[node.name or ""] = Decision(
                node.name or "", node.op_type, quantized=True, reason="pooling between INT8 layers"
            )


def _reaches_quantized(value: ir.Value, consumers: Mapping[str, set[Consumer]]) -> bool:
    if consumers.get(_name(value)):
        return True
    return any(
        _reaches_quantized(user.outputs[0], consumers)
        for user, index in value.uses()
        if index == 0 and moves_values(user)
    )


def _comes_from_quantized(
    value: ir.Value | None,
    decisions: Mapping[str, Decision],
    consumers: Mapping[str, set[Consumer]],
) -> bool:
    """Whether `value` is quantized for another reader, or a quantized layer or its activation made it."""
    while value is not None:
        if consumers.get(_name(value)):
            return True
        producer = value.producer()
        if producer is None:
            return False
        decision = decisions.get(producer.name or "")
        if decision is not None and decision.quantized:
            return True
        if producer.op_type not in ("Relu", "Clip", "LeakyRelu"):
            return False
        value = producer.inputs[0]
    return False


def _follow_values(
    model: ir.Model, consumers: dict[str, set[Consumer]]
) -> dict[str, frozenset[str]]:
    """Apply rule 3 from the outputs to the inputs, and find the roots of every quantized tensor.

    Tensors joined by a Concat or by data movement form one group with one scale; its roots are the
    members that something computes.
    """
    group: dict[str, str] = {}

    def find(name: str) -> str:
        group.setdefault(name, name)
        while group[name] != name:
            group[name] = group[group[name]]
            name = group[name]
        return name

    moved: set[str] = set()
    for node in reversed(model.graph):
        quantized = [_name(output) for output in node.outputs if consumers.get(_name(output))]
        sources = _sources(node) if quantized and _all_read_int8(node, consumers) else {}
        for index, source in sources.items():
            consumers[source].add(Consumer(node.name or "", index))
            for output in quantized:
                group[find(output)] = find(source)
        if sources:
            moved.update(quantized)
    members: dict[str, set[str]] = defaultdict(set)
    for name in consumers:
        if name not in moved:
            members[find(name)].add(name)
    return {name: frozenset(members[find(name)]) for name in consumers}


def _all_read_int8(node: ir.Node, consumers: Mapping[str, set[Consumer]]) -> bool:
    """Whether nobody reads an output of `node` in float."""
    for output in node.outputs:
        readers = consumers.get(_name(output), set())
        if output.is_graph_output() or any(
            user.graph is not node.graph or Consumer(user.name or "", index) not in readers
            for user, index in output.uses()
        ):
            return False
    return True


def _sources(node: ir.Node) -> dict[int, str]:
    """Input index -> tensor, for the inputs whose values `node` passes on unchanged."""
    if node.op_type == "Concat":
        inputs = dict(enumerate(node.inputs))
    elif moves_values(node):
        inputs = {0: node.inputs[0]}
    else:
        return {}
    if any(value is None or is_constant(value) for value in inputs.values()):
        return {}
    return {index: _name(value) for index, value in inputs.items()}


def _others(
    model: ir.Model, decided: Mapping[str, Decision], consumers: Mapping[str, set[Consumer]]
) -> dict[str, Decision]:
    reads = {consumer.node for readers in consumers.values() for consumer in readers}
    found = {}
    for node in model.graph:
        name = node.name or ""
        if name in decided:
            continue
        if name in reads:
            reason = "moves INT8 values; input and output share a scale"
        elif moves_values(node) or node.op_type == "Concat":
            reason = "moves values between float layers"
        else:
            reason = f"{node.op_type} has no weights; it follows the precision around it"
        found[name] = Decision(name, node.op_type, name in reads, reason)
    return found
