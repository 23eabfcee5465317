"""Where Q/DQ go for TensorRT: the rules of explicit quantization.

1. Every data input of a selected Conv, ConvTranspose, Gemm or MatMul reads through Q/DQ; so does its
   weight. Outputs get none: the consumer's pair is enough, and Conv + activation stays one kernel.
2. A residual Add of the output of a selected convolution and another tensor (the skip branch) reads only
   the skip branch through Q/DQ, so that Conv + Add (+ Relu) becomes one INT8 kernel. If both sides come
   from convolutions, the one with the longer path before it is the main branch. After a Gemm or MatMul the
   Add stays float: the residual stream of a transformer has channels a hundred times larger than others,
   so one scale rounds those away, and no kernel is saved. A sum that goes to Softmax and may hold a mask
   (`masks`), or goes to Softmax or a normalisation (`fragile`), stays float, too.
3. Data movement (Reshape, Slice, MaxPool, ...) whose readers are all quantized reads through Q/DQ of the
   same scale; so does every input of a Concat. TensorRT then moves Q up and makes no copy. If a reader
   needs the moved values in float, Q/DQ stay behind the movement, and that reader gets unrounded values.
   On a target that would then pool twice, all readers of a MaxPool read through its pair.
4. Average pooling between two quantized layers reads through a pair with a scale of its own.
5. What the target runs in float anyway, or cheaper in float, stays float (`trtbuild.target`).
6. If the target makes one INT8 kernel of attention, Q, K, V and the output of Softmax are read through Q/DQ.
7. Biases and everything else stay float.

Each place where a rule chooses INT8 is a group. A group to keep in float is left out when its rule would
choose it, and the following rules see the result.

Source: NVIDIA's TensorRT developer guide, "Explicit quantization" and "Q/DQ layer-placement
recommendations"; NVIDIA Model Optimizer's INT8 placement for rules 2 to 4, whose residual rule
(`modelopt.onnx.quantization.graph_utils.build_non_residual_input_map`) is for Convolution + Add alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant
from trtbuild.model.names import value_name
from trtbuild.model.operators import (
    AVERAGING,
    CONVOLUTIONS,
    ONNX_DOMAINS,
    RECURRENT,
    WEIGHTED,
    moves_values,
    weight_axis,
)
from trtbuild.model.stats import node_macs
from trtbuild.plan import GRAPH_OUTPUT, Consumer, Decision, Group, GroupKind, Placement, WeightPoint
from trtbuild.quantization.attention import (
    attention_blocks,
    attention_reason,
    why_attention_is_float,
)
from trtbuild.quantization.fragile import fragile_reader
from trtbuild.quantization.selection import no_int8_form
from trtbuild.quantization.target_rules import pool_reason, why_layer_is_float, why_pool_is_float

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.target import Target

__all__ = ["place_tensorrt"]

_STREAM = "the residual stream after a {} stays float; only Conv + Add is one INT8 kernel"
_FRAGILE = "its sum goes to {}, which no rounded branch may reach"
_SHARES = "moves INT8 values; input and output share a scale"
_POOLS_ONCE = "target {}: it is read in INT8 and in float, and runs once where one pair serves both"


def place_tensorrt(
    model: ir.Model,
    floats: Mapping[str, str],
    target: Target,
    apart: Collection[Consumer] = (),
) -> Placement:
    """Place Q/DQ on the main graph of `model`, not in bodies of If and Loop.

    Args:
        model: a float network.
        floats: name of a node whose group stays in float -> why.
        target: the compiler to place Q/DQ for.
        apart: inputs of Concats that keep a scale of their own.
    """
    choice = _Choice(floats)
    weights = []
    for node in model.graph:
        if _is_layer(node) and no_int8_form(node) is None:
            reason = "data and weight through Q/DQ"
            inputs, why_float = {0: node.inputs[0]}, why_layer_is_float(node, target)
            if choice.make(node, GroupKind.LAYER, inputs, reason, why_float):
                weights.append(_weight_point(node))
    _add_skip_branches(model, choice)
    _add_pools(model, choice, target)
    roots = _follow_values(model, choice, target, apart)
    probabilities = _add_attention(model, choice, target)
    roots.update({n: frozenset({n}) for n in choice.consumers if n not in roots})
    names = [node.name or "" for node in model.graph]
    return Placement(
        {name: frozenset(readers) for name, readers in choice.consumers.items()},
        tuple(weights),
        roots,
        groups=tuple(choice.groups[name] for name in names if name in choice.groups),
        decisions=tuple(_decision(node, choice.groups) for node in model.graph),
        unclipped=probabilities & choice.consumers.keys(),
    )


class _Choice:
    """The groups so far, and the inputs that read through Q/DQ because of them."""

    def __init__(self, floats: Mapping[str, str]) -> None:
        self._floats = floats
        self.groups: dict[str, Group] = {}
        self.consumers: dict[str, set[Consumer]] = defaultdict(set)

    def make(
        self,
        node: ir.Node,
        kind: GroupKind,
        inputs: Mapping[int, ir.Value | None],
        reason: str,
        why_float: str | None = None,
    ) -> bool:
        """Make a group of these inputs of `node`; return whether it is in INT8."""
        name = node.name or ""
        why_float = self._floats.get(name, why_float)
        readers = {index: Consumer(name, index) for index in inputs}
        self.groups[name] = Group(
            name,
            node.op_type,
            kind,
            frozenset(readers.values()),
            int8=why_float is None,
            reason=why_float or reason,
            macs=node_macs(node),
        )
        if why_float is None:
            for index, value in inputs.items():
                self.consumers[value_name(value)].add(readers[index])
        return why_float is None

    def read_along(self, node: ir.Node, name: str, readers: Collection[Consumer]) -> None:
        """Let further readers read the tensor `name` through Q/DQ, as part of the group of `node`."""
        group = self.groups[node.name or ""]
        joined = group.consumers | frozenset(readers)
        self.groups[group.name] = replace(group, consumers=joined)
        self.consumers[name].update(readers)

    def may_round(self, readers: Collection[Consumer]) -> bool:
        """Whether these may read rounded values: none is an output of the network or kept in float."""
        return not any(r.node == GRAPH_OUTPUT or r.node in self._floats for r in readers)

    def is_kept_float(self, node: ir.Node) -> bool:
        """Whether the user, a search or its ranges keep a node in float."""
        return node.name in self._floats

    def is_int8(self, node: ir.Node) -> bool:
        """Whether `node` reads through Q/DQ."""
        group = self.groups.get(node.name or "")
        return group is not None and group.int8


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in WEIGHTED | RECURRENT and node.domain in ONNX_DOMAINS


def _weight_point(node: ir.Node) -> WeightPoint:
    weight = node.inputs[1]
    rank = len(weight.shape) if weight is not None and weight.shape is not None else 0
    return WeightPoint(node.name or "", 1, weight_axis(node, rank))


def _add_skip_branches(model: ir.Model, choice: _Choice) -> None:
    depth = _depths(model)
    for node in model.graph:
        if node.op_type != "Add" or node.domain or any(is_constant(v) for v in node.inputs):
            continue
        main = [i for i, value in enumerate(node.inputs) if _fuses(value, choice)]
        if not main:
            continue
        main = [i for i in main if _producer_type(node.inputs[i]) in CONVOLUTIONS] or main
        kept = max(main, key=lambda i: (depth[_producer_name(node.inputs[i])], -i))
        skip = node.inputs[1 - kept]
        if skip is not None and skip is not node.inputs[kept]:
            reason = "residual: the skip branch through Q/DQ"
            fused = _producer_type(node.inputs[kept])
            why_float = None if fused in CONVOLUTIONS else _STREAM.format(fused)
            fragile = fragile_reader(node.outputs[0])
            if fragile is not None and why_float is None:
                why_float = _FRAGILE.format(fragile.op_type)
            choice.make(node, GroupKind.SKIP_BRANCH, {1 - kept: skip}, reason, why_float)


def _fuses(value: ir.Value | None, choice: _Choice) -> bool:
    """Whether `value` is the output of a quantized layer and has only one reader."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type not in WEIGHTED or value is None:
        return False
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return choice.is_int8(producer) and alone


def _producer_type(value: ir.Value | None) -> str:
    producer = value.producer() if value is not None else None
    return "" if producer is None else producer.op_type


def _producer_name(value: ir.Value | None) -> str:
    producer = value.producer() if value is not None else None
    return producer.name or "" if producer is not None else ""


def _depths(model: ir.Model) -> dict[str, int]:
    """Length of the longest path from an input to each node."""
    depth: dict[str, int] = {"": 0}
    for node in model.graph:
        depth[node.name or ""] = 1 + max((depth[_producer_name(v)] for v in node.inputs), default=0)
    return depth


def _add_pools(model: ir.Model, choice: _Choice, target: Target) -> None:
    for node in model.graph:
        if node.op_type not in AVERAGING:
            continue
        if _reaches_quantized(node.outputs[0], choice.consumers) and _comes_from_quantized(
            node.inputs[0], choice
        ):
            inputs, reason = {0: node.inputs[0]}, pool_reason(node, target)
            choice.make(node, GroupKind.POOL, inputs, reason, why_pool_is_float(node, target))


def _add_attention(model: ir.Model, choice: _Choice, target: Target) -> frozenset[str]:
    """Apply rule 6; return the names of the Softmax outputs, whose scales must not clip."""
    found = set()
    for block in attention_blocks(model) if target.attention is not None else ():
        both = (block.scores, block.mixed)
        why_float = why_attention_is_float(block, target)
        named = [node.name for node in both if choice.is_kept_float(node)]
        if named and why_float is None:
            why_float = f"attention is one kernel, and '{named[0]}' is in float"
        for node in both:
            reason = attention_reason(block, target)
            choice.make(node, GroupKind.ATTENTION, dict(enumerate(node.inputs)), reason, why_float)
        found.add(value_name(block.mixed.inputs[0]))
    return frozenset(found)


def _reaches_quantized(value: ir.Value, consumers: Mapping[str, set[Consumer]]) -> bool:
    if consumers.get(value_name(value)):
        return True
    return any(
        _reaches_quantized(user.outputs[0], consumers)
        for user, index in value.uses()
        if index == 0 and moves_values(user)
    )


def _comes_from_quantized(value: ir.Value | None, choice: _Choice) -> bool:
    """Whether `value` is quantized for another reader, or comes from a quantized layer or its activation."""
    while value is not None:
        if choice.consumers.get(value_name(value)):
            return True
        producer = value.producer()
        if producer is None:
            return False
        if choice.is_int8(producer):
            return True
        if producer.op_type not in ("Relu", "Clip", "LeakyRelu"):
            return False
        value = producer.inputs[0]
    return False


def _follow_values(
    model: ir.Model, choice: _Choice, target: Target, apart: Collection[Consumer]
) -> dict[str, frozenset[str]]:
    """Apply rule 3 from the outputs to the inputs, and find the roots of every quantized tensor.

    Tensors joined by a Concat or by data movement share one scale; its roots are those of them that are
    computed, not moved.
    """
    group: dict[str, str] = {}

    def find(name: str) -> str:
        """Return the representative of the tensors that share a scale (union-find with path halving)."""
        group.setdefault(name, name)
        while group[name] != name:
            group[name] = group[group[name]]
            name = group[name]
        return name

    consumers = choice.consumers
    moved: set[str] = set()
    for node in reversed(model.graph):
        quantized = [
            value_name(output) for output in node.outputs if consumers.get(value_name(output))
        ]
        sources = _passed_on(node, quantized, choice, target) if quantized else {}
        for index, source in sources.items():
            joins = Consumer(node.name or "", index) not in apart
            for output in quantized if joins else ():
                group[find(output)] = find(value_name(source))
        moved.update(quantized if sources else ())
    members: dict[str, set[str]] = defaultdict(set)
    for name in consumers:
        if name not in moved:
            members[find(name)].add(name)
    return {name: frozenset(members[find(name)]) for name in consumers}


def _passed_on(
    node: ir.Node, quantized: Sequence[str], choice: _Choice, target: Target
) -> dict[int, ir.Value | None]:
    """Make the group of a node that moves INT8 values; return the inputs that then read through Q/DQ."""
    in_float = _float_readers(node, choice.consumers)
    sources = _sources(node)
    kind = GroupKind.CONCAT if node.op_type == "Concat" else GroupKind.MOVEMENT
    made = False
    if sources and not in_float:
        made = choice.make(node, kind, sources, _SHARES)
    elif target.one_pair_for_pool and node.op_type == "MaxPool" and choice.may_round(in_float):
        reason = _POOLS_ONCE.format(target.name)
        made = choice.make(node, GroupKind.POOL, sources, reason)
        if made:
            choice.read_along(node, quantized[0], in_float)
    return sources if made else {}


def _float_readers(node: ir.Node, consumers: Mapping[str, set[Consumer]]) -> tuple[Consumer, ...]:
    """The readers of `node`'s outputs in float; an output of the network, or a reader in a body, is one."""
    found = []
    for output in node.outputs:
        readers = consumers.get(value_name(output), set())
        if output.is_graph_output():
            found.append(Consumer(GRAPH_OUTPUT, 0))
        for user, index in output.uses():
            reader = Consumer(user.name or "", index)
            if user.graph is not node.graph:
                found.append(Consumer(GRAPH_OUTPUT, 0))
            elif reader not in readers:
                found.append(reader)
    return tuple(found)


def _sources(node: ir.Node) -> dict[int, ir.Value | None]:
    """Input index -> tensor, for the inputs whose values `node` passes on unchanged."""
    if node.op_type == "Concat":
        inputs = dict(enumerate(node.inputs))
    elif moves_values(node):
        inputs = {0: node.inputs[0]}
    else:
        return {}
    if any(value is None or is_constant(value) for value in inputs.values()):
        return {}
    return inputs


def _decision(node: ir.Node, groups: Mapping[str, Group]) -> Decision:
    name = node.name or ""
    if name in groups:
        return Decision(name, node.op_type, groups[name].int8, groups[name].reason)
    reason = no_int8_form(node) if _is_layer(node) else None
    if reason is None and (moves_values(node) or node.op_type == "Concat"):
        reason = "moves values between float layers"
    if reason is None:
        reason = f"{node.op_type} has no weights; it follows the precision around it"
    return Decision(name, node.op_type, int8=False, reason=reason)
