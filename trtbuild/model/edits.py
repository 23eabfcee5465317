"""Changes to a network: add constants and nodes, replace outputs, remove what nothing reads."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import LARGE
from trtbuild.model.names import Names
from trtbuild.model.stored_weights import in_file
from trtbuild.model.traversal import all_graphs, all_nodes, bodies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "GraphWriter",
    "add_initializer",
    "drop_node",
    "drop_unread_initializers",
    "is_read",
    "remove_unread",
    "set_constant",
    "set_outputs",
    "take_over_output",
    "tap",
    "tapped",
    "tapped_here",
]


def add_initializer(
    graph: ir.Graph, name: str, content: np.ndarray | ir.TensorProtocol
) -> ir.Value:
    """Add a constant to `graph`; a tensor is shared, not copied.

    Args:
        graph: the graph that gets it.
        name: a name that no other tensor has.
        content: its dtype, shape and elements.
    """
    # checking whether an array fulfils the tensor protocol would take longer than all the rest
    if isinstance(content, np.ndarray | np.generic):
        content = ir.Tensor(content, name=name)
    return ir.tape.Tape(graph).initializer(content, name)


def set_constant(
    model: ir.Model, node: ir.Node, index: int, array: np.ndarray, suffix: str
) -> None:
    """Call `GraphWriter.set_constant` once; for many constants keep one writer, which collects names once."""
    GraphWriter(model).set_constant(node, index, array, suffix)


def _like(old: ir.Value | None, content: np.ndarray) -> np.ndarray | ir.TensorProtocol:
    """The content of a new constant: in a file if it is large and the old one is mapped from a file."""
    mapped = old is not None and isinstance(old.const_value, ir.ExternalTensor)
    return in_file(content) if mapped and content.nbytes >= LARGE else content


def take_over_output(output: ir.Value, new: ir.Value, *, aside: str) -> None:
    """Make `new` the graph's output in place of `output`, under the name of `output`, which callers rely on.

    Nodes inside the network that read `output` keep reading it.

    Args:
        output: an output of a graph.
        new: a tensor of the same graph that is no output of it.
        aside: the new name of `output`.
    """
    graph = output.graph
    assert graph is not None, "an output belongs to a graph"
    name = output.name
    output.name = aside
    new.name = name
    for place, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[place] = new


def set_outputs(graph: ir.Graph, values: Iterable[ir.Value]) -> None:
    """Make `values`, in this order, the only outputs of `graph`."""
    wanted = list(values)  # before clearing: `values` may be a view of the outputs
    graph.outputs.clear()
    graph.outputs.extend(wanted)


def drop_node(node: ir.Node) -> None:
    """Remove `node`, and all that only it needed, unless something reads it."""
    waiting = [node]
    while waiting:
        candidate = waiting.pop()
        graph = candidate.graph
        if graph is None or is_read(candidate):
            continue
        sources = [value.producer() for value in candidate.inputs if value is not None]
        for body in bodies(candidate):
            sources += _let_go(body)
        graph.remove(candidate, safe=True)
        waiting.extend(source for source in sources if source is not None)


def is_read(node: ir.Node) -> bool:
    """Return whether an output of `node` is read by a node or is an output of the graph."""
    return any(output.uses() or output.is_graph_output() for output in node.outputs)


def _let_go(body: ir.Graph) -> list[ir.Node | None]:
    """Detach a removed body from the tensors that it reads and outputs; return the nodes that made them."""
    sources = []
    for graph in all_graphs(body):
        sources += [value.producer() for value in graph.outputs]
        graph.outputs.clear()
    for node in all_nodes(body):
        for index, value in enumerate(node.inputs):
            if value is not None:
                sources.append(value.producer())
                node.replace_input_with(index, None)
    return sources


def drop_unread_initializers(model: ir.Model) -> tuple[str, ...]:
    """Remove the constants that nothing reads, in the bodies of nodes too, and return their names.

    Inputs and outputs of a graph stay.
    """
    unread = [
        (graph, name)
        for graph in all_graphs(model.graph)
        for name, value in graph.initializers.items()
        if not (value.uses() or value.is_graph_output() or value.is_graph_input())
    ]
    for graph, name in unread:
        del graph.initializers[name]
    return tuple(name for _, name in unread)


def remove_unread(model: ir.Model) -> None:
    """Remove the nodes and constants that no output needs, in place; the other nodes do not change.

    ``onnx_ir.passes.common.RemoveUnusedNodesPass`` also cuts empty operands and optional outputs off
    the other nodes.
    """
    for node in reversed(model.graph):
        drop_node(node)
    drop_unread_initializers(model)


def tapped(model: ir.Model, names: Collection[str]) -> ir.Model:
    """Return a copy of `model` whose outputs are the computed tensors among `names`, in the graph's order.

    The copy does not compute what only other outputs need. If no node computes any of `names` (inputs
    alone, say), the outputs stay as they are.
    """
    copy = model.clone()
    tap(copy, names)
    return copy


@contextlib.contextmanager
def tapped_here(model: ir.Model, names: Collection[str]) -> Iterator[None]:
    """Change the outputs of `model` as `tapped` does, in the block; nobody else may read it meanwhile."""
    before = list(model.graph.outputs)
    tap(model, names)
    try:
        yield
    finally:
        set_outputs(model.graph, before)


def tap(model: ir.Model, names: Collection[str]) -> None:
    """Change the outputs of `model` itself as `tapped` does in a copy."""
    wanted = frozenset(names)
    values = [value for node in model.graph for value in node.outputs if value.name in wanted]
    if values:
        set_outputs(model.graph, values)


class GraphWriter:
    """Adds nodes and constants to the main graph of one model, each with a unique name."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._names = Names(model)
        self._node_names = {node.name for node in model.graph}

    def fresh(self, hint: str) -> str:
        """Return a tensor name that starts with `hint` and is not taken."""
        return self._names.fresh(hint)

    def constant(self, hint: str, array: np.ndarray | ir.TensorProtocol) -> ir.Value:
        """Add an initializer."""
        return add_initializer(self.graph, self._names.fresh(hint), array)

    def set_constant(self, node: ir.Node, index: int, array: np.ndarray, suffix: str) -> None:
        """Give `node` of the main graph its own constant as input `index`; other readers keep the old one.

        Args:
            node: a layer, or an Add; its constant gets the dtype of its other operands.
            index: the input, which may not exist yet.
            array: the elements.
            suffix: last part of the constant's name, behind those of node and index.
        """
        given = (value.dtype for value in (node.inputs[1], *node.inputs) if value is not None)
        dtype = next(dtype for dtype in given if dtype is not None)
        old = node.inputs[index] if index < len(node.inputs) else None
        content = _like(old, array.astype(dtype.numpy()))
        value = self.constant(f"{node.name}_{index}_{suffix}", content)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)
        if old is None or not old.is_initializer() or old.uses() or old.is_graph_output():
            return
        del self.graph.initializers[old.name or ""]
        if not old.is_graph_input():
            self._names.release(old.name or "")

    def quantize(self, value: ir.Value, parameters: Sequence[ir.Value], hint: str) -> ir.Node:
        """Make the QuantizeLinear of an activation; the caller inserts it into the graph."""
        node = self._node("QuantizeLinear", [value, *parameters], hint, {})
        assert parameters[1].dtype is not None
        node.outputs[0].dtype = parameters[1].dtype
        node.outputs[0].shape = value.shape
        return node

    def dequantize(
        self,
        value: ir.Value,
        parameters: Sequence[ir.Value],
        hint: str,
        like: ir.Value,
        axis: int | None,
    ) -> ir.Node:
        """Make a DequantizeLinear whose output has the type and shape of `like`."""
        attributes = {} if axis is None else {"axis": axis}
        node = self._node("DequantizeLinear", [value, *parameters], hint, attributes)
        node.outputs[0].type = like.type
        node.outputs[0].shape = like.shape
        return node

    def with_constant(
        self, op_type: str, value: ir.Value, constant: np.ndarray, hint: str
    ) -> ir.Value:
        """Insert ``op_type(value, constant)`` directly after `value` and return its output.

        The constant gets the dtype of `value`. The output gets its type and its shape: the constant must not
        broadcast it to a larger one.
        """
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        operand = self.constant(f"{hint}_by", constant.astype(dtype))
        node = self._node(op_type, [value, operand], hint, {})
        output = node.outputs[0]
        output.type = value.type
        output.shape = value.shape
        self.place_behind(value, [node])
        return output

    def place_behind(self, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
        """Insert new nodes directly after the one that makes `value`; for an input, before all nodes."""
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.insert_after(producer, nodes)

    def _node(
        self, op_type: str, inputs: Sequence[ir.Value], hint: str, attributes: Mapping[str, int]
    ) -> ir.Node:
        output = self._names.fresh(hint)
        base = name = f"{output}_{op_type}"
        number = 1
        while name in self._node_names:
            number += 1
            name = f"{base}_{number}"
        self._node_names.add(name)
        node = ir.node(op_type, list(inputs), attributes=attributes, name=name)
        node.outputs[0].name = output
        return node
