"""Splits a network with operators that ONNX Runtime does not have, such as TensorRT's plugins, in two.

The front runs in ONNX Runtime: it is calibrated, quantized and compared. The part behind starts at the first
such operator; it stays as it was read, and is joined to the front again for TensorRT.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError
from trtbuild.model.edits import drop_node, drop_unread_initializers, set_outputs
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model
from trtbuild.model.operators import RANDOM, RECURRENT, WEIGHTED
from trtbuild.model.traversal import (
    all_graphs,
    all_nodes,
    bodies,
    label,
    tensors_by_name,
    values_by_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Set

__all__ = ["Cut", "ForeignOperator", "LeftBehind", "cut", "operators_outside"]


@dataclass(frozen=True)
class ForeignOperator:
    """One operator that a runtime does not have.

    Attributes:
        op_type, domain: its type; the domain is empty for ONNX's own operators.
        node: the node's name, or that of its first output.
        top: the node of the main graph that is this operator or contains it.
    """

    op_type: str
    domain: str
    node: str
    top: ir.Node

    def __str__(self) -> str:
        """The operator as messages name it, for example ``TRT:EfficientNMS_TRT 'nms'``."""
        kind = f"{self.domain}:{self.op_type}" if self.domain else self.op_type
        return f"{kind} '{self.node}'"


@dataclass(frozen=True)
class LeftBehind:
    """A node of the part behind the cut."""

    node: str
    op_type: str


@dataclass(frozen=True)
class Cut:
    """Where a network was cut, and the part behind the cut.

    Attributes:
        operators: the operators in front of which it was cut.
        tensors: names of the front's tensors that the part behind reads, without inputs of the network.
        nodes: the nodes behind the cut, in order.
        outputs: names of the outputs of the whole network, in order.
        behind: the part behind; its inputs are `tensors` and inputs of the network.
    """

    operators: tuple[ForeignOperator, ...]
    tensors: tuple[str, ...]
    nodes: tuple[LeftBehind, ...]
    outputs: tuple[str, ...]
    behind: ir.Model

    @property
    def reason(self) -> str:
        """Why the layers behind the cut stay in float."""
        return f"it comes after {self.named}, which ONNX Runtime cannot run"

    @property
    def named(self) -> str:
        """The operators as one text; of many, the first three."""
        shown = ", ".join(str(operator) for operator in self.operators[:3])
        more = len(self.operators) - 3
        return f"{shown} and {more} more" if more > 0 else shown

    def join(self, front: ir.Model) -> ir.Model:
        """Return a new network: `front`, followed by the part behind the cut.

        Args:
            front: what `cut` returned, or a later stage's version; its outputs include the cut's tensors.
        """
        joined, behind = front.clone(), self.behind.clone()
        _rename_apart(joined, behind)
        ends = {value.name: value for value in (*joined.graph.inputs, *joined.graph.outputs)}
        for value in behind.graph.inputs:
            value.replace_all_uses_with(ends[value.name], replace_graph_outputs=True)
        ends.update({value.name: value for value in behind.graph.outputs})
        behind.graph.outputs.clear()
        behind.graph.inputs.clear()
        _move_weights(behind.graph, joined.graph)
        nodes = list(behind.graph)
        behind.graph.remove(nodes)
        joined.graph.extend(nodes)
        set_outputs(joined.graph, [ends[name] for name in self.outputs])
        for domain, version in behind.opset_imports.items():
            joined.opset_imports.setdefault(domain, version)
        for key, function in behind.functions.items():
            joined.functions.setdefault(key, function)
        joined.ir_version = max(joined.ir_version or 0, behind.ir_version or 0)
        return joined


def operators_outside(
    model: ir.Model, has: Callable[[str, str], bool]
) -> tuple[ForeignOperator, ...]:
    """Return the operators of `model` that a runtime does not have, also those in bodies and functions.

    Args:
        model: the network.
        has: (domain, op type) -> whether the runtime has it.
    """
    has = functools.cache(has)
    lacking: dict[tuple[str, str], tuple[str, str]] = {}
    for _ in model.functions:  # functions may call each other; each round reaches one call deeper
        for key, function in model.functions.items():
            for node in (inner for top in function for inner in _with_inner(top)):
                found = _lacking(model, node, has, lacking)
                if found is not None:
                    lacking[key[0], key[1]] = found
    operators = []
    for top in model.graph:
        for node in _with_inner(top):
            found = _lacking(model, node, has, lacking)
            if found is not None:
                operators.append(ForeignOperator(found[1], found[0], label(node), top))
    return tuple(operators)


def _lacking(
    model: ir.Model,
    node: ir.Node,
    has: Callable[[str, str], bool],
    lacking: Mapping[tuple[str, str], tuple[str, str]],
) -> tuple[str, str] | None:
    """The operator (domain, op type) that the runtime lacks for `node`; None where it runs."""
    if model.functions and any(key[:2] == (node.domain, node.op_type) for key in model.functions):
        return lacking.get((node.domain, node.op_type))
    return None if has(node.domain, node.op_type) else (node.domain, node.op_type)


def _with_inner(node: ir.Node) -> Iterator[ir.Node]:
    yield node
    for body in bodies(node):
        yield from all_nodes(body)


def cut(model: ir.Model, operators: tuple[ForeignOperator, ...]) -> tuple[ir.Model, Cut]:
    """Return the part of `model` in front of `operators`, and the cut; `model` does not change.

    The outputs of the front are the network's outputs that it still computes, then the tensors at the cut.
    Nodes that depend on no input and that the part behind reads are in both parts.

    Raises:
        ModelError: the front has no layer with weights.
    """
    behind = {id(operator.top) for operator in operators}
    while True:
        parts = _divided(model, behind)
        front = _front(model, parts)
        infer_model(front)
        no_tensors = {
            value.name
            for value in front.graph.outputs
            if value.type is not None and not isinstance(value.type, ir.TensorType)
        } & set(parts.tensors)
        if not no_tensors:
            break
        behind |= {id(node) for node in model.graph if no_tensors & {v.name for v in node.outputs}}
    found = Cut(
        operators,
        parts.tensors,
        tuple(
            LeftBehind(label(node), node.op_type)
            for node in model.graph
            if id(node) in parts.behind
        ),
        tuple(value.name or "" for value in model.graph.outputs),
        _behind(model, front, parts),
    )
    if not any(node.op_type in WEIGHTED | RECURRENT for node in all_nodes(front.graph)):
        raise ModelError(
            f"ONNX Runtime cannot run {found.named}, and no layer with weights comes before it: nothing "
            "can be calibrated or compared. Export the network without it, or give a network that begins "
            "after it."
        )
    return front, found


@dataclass(frozen=True)
class _Parts:
    """The nodes of a network, divided into front and part behind.

    Attributes:
        behind: ids of the nodes behind the cut, without constants.
        constants: ids of nodes that depend on no input and that a node behind needs.
        tensors: names of the tensors at the cut.
    """

    behind: Set[int]
    constants: Set[int]
    tensors: tuple[str, ...]


def _divided(model: ir.Model, first: Iterable[int]) -> _Parts:
    """Divide a network; ids of the nodes that the cut is in front of are in `first`."""
    behind, steady = _behind_and_steady(model.graph, first)
    constants: set[int] = set()
    tensors: set[str] = set()
    for node in reversed(list(model.graph)):
        if id(node) not in behind | constants:
            continue
        for value in _reads(node, model.graph):
            maker = value.producer()
            if id(maker) in steady:
                constants.add(id(maker))
            elif maker is not None and id(maker) not in behind:
                tensors.add(value.name or "")
    order = (value.name or "" for node in model.graph for value in node.outputs)
    return _Parts(behind, constants, tuple(name for name in order if name in tensors))


def _behind_and_steady(graph: ir.Graph, first: Iterable[int]) -> tuple[set[int], set[int]]:
    """Ids of the nodes `first` and all after them, and of nodes whose results are always the same."""
    behind, steady = set(first), set[int]()
    inputs = {id(value) for value in graph.inputs}
    for node in graph:
        read = _reads(node, graph)
        makers = [value.producer() for value in read]
        if any(id(maker) in behind for maker in makers):
            behind.add(id(node))
        elif (
            id(node) not in behind
            and not any(inner.op_type in RANDOM for inner in _with_inner(node))
            and not any(id(value) in inputs for value in read)
            and all(maker is None or id(maker) in steady for maker in makers)
        ):
            steady.add(id(node))
    return behind, steady


def _reads(node: ir.Node, graph: ir.Graph) -> list[ir.Value]:
    """The tensors of `graph` that `node` reads, also those that its bodies capture."""
    read = [value for inner in _with_inner(node) for value in inner.inputs if value is not None]
    read += [value for body in bodies(node) for one in all_graphs(body) for value in one.outputs]
    return [value for value in read if value.graph is graph]


def _front(model: ir.Model, parts: _Parts) -> ir.Model:
    front = model.clone()
    graph = front.graph
    pairs = list(zip(model.graph, graph))
    gone = [copy for node, copy in pairs if id(node) in parts.behind]
    made_behind = {id(value) for node in gone for value in node.outputs}
    values = values_by_name(graph)
    kept = [value for value in graph.outputs if id(value) not in made_behind]
    names = {value.name for value in kept}
    set_outputs(graph, [*kept, *(values[name] for name in parts.tensors if name not in names)])
    _remove(front, gone)
    used = {node.domain for node in front.graph.all_nodes()} | {key[0] for key in front.functions}
    for domain in [name for name in front.opset_imports if name not in used | {""}]:
        del front.opset_imports[domain]
    return front


def _behind(model: ir.Model, front: ir.Model, parts: _Parts) -> ir.Model:
    known = {value.name: value for value in front.graph.outputs}
    behind = model.clone()
    graph = behind.graph
    wanted = parts.behind | parts.constants
    pairs = list(zip(model.graph, graph))
    values = values_by_name(graph)
    made = {
        value.name for node, copy in pairs if id(node) in parts.behind for value in copy.outputs
    }
    set_outputs(graph, [value for value in graph.outputs if value.name in made])
    for name in parts.tensors:
        given = ir.Value(name=name, type=known[name].type, shape=known[name].shape)
        values[name].replace_all_uses_with(given, replace_graph_outputs=True)
        graph.inputs.append(given)
    _remove(behind, [copy for node, copy in pairs if id(node) not in wanted])
    for value in [one for one in graph.inputs if not (one.uses() or one.is_graph_output())]:
        graph.inputs.remove(value)
    return behind


def _remove(model: ir.Model, nodes: list[ir.Node]) -> None:
    """Remove `nodes`, whose outputs no other node reads, and the weights that only they read."""
    for node in reversed(nodes):
        drop_node(node)
    drop_unread_initializers(model)


def _rename_apart(joined: ir.Model, behind: ir.Model) -> None:
    """Rename values and nodes of `behind` whose names stages have since used in the front.

    If such a name is an input or output of `behind`, the front's value is renamed instead.
    """
    kept = {value.name for value in (*behind.graph.inputs, *behind.graph.outputs)}
    fixed = {value.name for value in (*joined.graph.inputs, *joined.graph.outputs)}
    ours, theirs = _values(joined), _values(behind)
    taken = {*ours, *theirs}
    for name in sorted(set(ours) & set(theirs)):
        if name in kept and name in fixed:
            continue  # a tensor at the cut
        if _is_same_weight(ours[name], theirs[name]):
            continue
        new = _free(name, taken)
        (ours if name in kept else theirs)[name].name = new
    names = {node.name for node in joined.graph if node.name}
    for node in behind.graph:
        if node.name in names:
            node.name = _free(node.name or "", names)


def _values(model: ir.Model) -> dict[str, ir.Value]:
    """Name -> value, for the tensors of every graph."""
    found: dict[str, ir.Value] = {}
    for graph in all_graphs(model.graph):
        found |= tensors_by_name(graph)
    return found


def _is_same_weight(ours: ir.Value, theirs: ir.Value) -> bool:
    return ours.const_value is not None and ours.const_value is theirs.const_value


def _free(name: str, taken: set[str]) -> str:
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    taken.add(f"{name}_{number}")
    return f"{name}_{number}"


def _move_weights(source: ir.Graph, target: ir.Graph) -> None:
    for name, value in list(source.initializers.items()):
        there = target.initializers.get(name)
        if there is not None:
            value.replace_all_uses_with(there, replace_graph_outputs=True)
        del source.initializers[name]
        if there is None:
            target.initializers.add(value)
