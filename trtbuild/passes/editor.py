"""Edits one model on behalf of one pass, and records what the pass did.

Ensures what holds for every pass: outputs keep their names, a body's outputs keep a node inside
the body that makes them, weights are copied and never edited, names stay unique.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model import inference
from trtbuild.model.edits import add_initializer, drop_node, take_over_output
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import LARGE, give_back, mapped_copy
from trtbuild.model.traversal import all_nodes, label
from trtbuild.passes.declined import Declined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbuild.model.names import Names

__all__ = ["Editor", "Note"]

_AXES_AS_OPERAND = 13
"""Opset from which on the axes of Squeeze and Unsqueeze are an input."""


@dataclass(frozen=True)
class Note:
    """What a pass did, or why it did nothing, at one node.

    Attributes:
        node: name of the node.
        op_type: its operator.
        text: what was done, or why nothing was.
    """

    node: str
    op_type: str
    text: str


@dataclass
class Editor:
    """Edits one model for one pass.

    Attributes:
        model: edited in place.
        names: gives names that nothing in the model has.
        mapped: the model's weights that are mapped from a file; if there are any, large new ones are mapped
            too.
        changes: what was done.
        declines: near matches that were not rewritten, and why.
    """

    model: ir.Model
    names: Names
    mapped: Sequence[ir.TensorProtocol] = ()
    changes: list[Note] = field(default_factory=list)
    declines: list[Note] = field(default_factory=list)

    @property
    def opset(self) -> int:
        """Version of the ONNX operator set that the model imports."""
        return self.model.opset_imports.get("", 1)

    def nodes(self, op_types: frozenset[str] = frozenset()) -> Iterator[ir.Node]:
        """Return every node of the ONNX domain of one of these types (none: all), bodies included.

        Nodes may be added and removed during the iteration.
        """
        for node in all_nodes(self.model.graph):
            if node.domain == "" and (not op_types or node.op_type in op_types):
                yield node

    def report(self, node: ir.Node, what: str) -> None:
        """Record that something was done at `node`."""
        self.changes.append(Note(label(node), node.op_type, what))

    def note(self, name: str, kind: str, what: str) -> None:
        """Record that something was done at a tensor or constant, not at a node."""
        self.changes.append(Note(name, kind, what))

    def decline(self, node: ir.Node, reason: str) -> None:
        """Record that a near match at `node` was not rewritten, and why."""
        self.declines.append(Note(label(node), node.op_type, reason))

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        before: ir.Node,
        like: ir.Value | None = None,
        outputs: int = 1,
    ) -> ir.Value:
        """Insert a node of the ONNX domain in front of `before`; return its first output.

        Args:
            op_type: the operator.
            inputs: its operands; None for one that is left out.
            attributes: its attributes as Python values; None values are left out.
            before: the node before which the new one is inserted, in the same graph.
            like: a tensor of the same type and dims as the first output; without it, they are
                inferred.
            outputs: the number of its outputs.
        """
        given = {key: item for key, item in (attributes or {}).items() if item is not None}
        node = ir.node(op_type, list(inputs), given, num_outputs=outputs)
        for output in node.outputs:
            output.name = self.names.fresh(f"{op_type}_out")
        self.insert(node, before=before)
        if like is not None:
            node.outputs[0].type = like.type
            node.outputs[0].shape = like.shape.copy() if like.shape is not None else None
        else:
            inference.infer_node(node, self.model.opset_imports)
        return node.outputs[0]

    def add_with_axes(
        self, op_type: str, source: ir.Value, axes: Sequence[int], *, before: ir.Node
    ) -> ir.Value:
        """Insert a Squeeze or Unsqueeze; their axes are an input since opset 13."""
        if self.opset < _AXES_AS_OPERAND:
            return self.add(op_type, [source], {"axes": list(axes)}, before=before)
        operand = self.constant(np.array(axes, np.int64), near=before, hint=f"{source.name}_axes")
        return self.add(op_type, [source, operand], before=before)

    def insert(self, node: ir.Node, *, before: ir.Node) -> None:
        """Insert a node that is in no graph in front of `before`."""
        graph = before.graph
        assert graph is not None, "the node to insert before is in a graph"
        graph.insert_before(before, node)

    def squeeze_behind(self, node: ir.Node, axes: Sequence[int]) -> ir.Value:
        """Insert a Squeeze after `node`, as `follow` does."""
        if self.opset < _AXES_AS_OPERAND:
            return self.follow(node, "Squeeze", {"axes": list(axes)})
        hint = f"{node.outputs[0].name}_axes"
        return self.follow(
            node, "Squeeze", {}, self.constant(np.array(axes, np.int64), near=node, hint=hint)
        )

    def follow(
        self, node: ir.Node, op_type: str, attributes: Mapping[str, Any], *parameters: ir.Value
    ) -> ir.Value:
        """Insert a new node behind `node`; readers of the output of `node` read the new node's instead.

        Call it after `node` has its new operands: the type and dims of `node` are inferred again.

        Args:
            node: the node whose output becomes the first operand.
            op_type: the operator of the new node.
            attributes: its attributes.
            parameters: its other operands.
        """
        output = node.outputs[0]
        graph = node.graph
        assert graph is not None, "the node is in a graph"
        new = ir.node(op_type, [None, *parameters], dict(attributes))
        new.outputs[0].name = self.names.fresh(f"{op_type}_out")
        graph.insert_after(node, new)
        self.forward(output, new.outputs[0])
        new.replace_input_with(0, output)
        output.shape = None
        self.infer(node)
        return new.outputs[0]

    def infer(self, node: ir.Node) -> None:
        """Infer types and dims of the outputs of `node` from what is known about its inputs."""
        inference.infer_node(node, self.model.opset_imports)

    def constant(self, content: NDArray[np.generic], near: ir.Node, hint: str) -> ir.Value:
        """Add an initializer to the graph of `near`; its name starts with `hint`."""
        if self.mapped and content.nbytes >= LARGE:
            content = mapped_copy(content)
            give_back(self.mapped)
        return self.initializer(ir.Tensor(content), near=near, hint=hint)

    def initializer(self, tensor: ir.TensorProtocol, near: ir.Node, hint: str) -> ir.Value:
        """Add an initializer that shares `tensor` to the graph of `near`."""
        graph = near.graph
        assert graph is not None, "the node is in a graph"
        return add_initializer(graph, self.names.fresh(hint), tensor)

    def become_constant(self, output: ir.Value, content: NDArray[np.generic]) -> None:
        """Replace a node's output by an initializer, or by a Constant node if it is a graph output."""
        node = output.producer()
        assert node is not None, "a node makes it"
        if output.is_graph_output():
            value = self.add("Constant", [], {"value": ir.Tensor(content)}, before=node)
        else:
            value = self.constant(content, near=node, hint=f"{output.name}_folded")
        self.forward(output, value)
        self.drop(node)

    def rewire(self, node: ir.Node, place: int, value: ir.Value) -> None:
        """Give `node` another operand, and drop the maker of the old one unless it has other readers."""
        old = node.inputs[place]
        node.replace_input_with(place, value)
        source = None if old is None else old.producer()
        if source is not None:
            self.drop(source)

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Write an attribute of `node`."""
        node.attributes.add(ir.convenience.convert_attribute(name, value))

    def bypass(self, node: ir.Node, output: ir.Value, replacement: ir.Value) -> None:
        """Let all readers of `output` of `node` read `replacement`, and drop `node`.

        Raises:
            Declined: `output` is an output of a graph, and `replacement` cannot take its name.
        """
        self.require_bypass(node, output, replacement)
        self.forward(output, replacement)
        self.drop(node)

    def require_bypass(self, node: ir.Node, output: ir.Value, replacement: ir.Value) -> None:
        """Check that `bypass` can be done.

        Raises:
            Declined: it cannot.
        """
        if not output.is_graph_output():
            return
        source = replacement.producer()
        if replacement.is_graph_input() or replacement.is_initializer() or source is None:
            raise Declined(f"output '{output.name}' needs a node that makes it")
        if source.graph is not node.graph:
            raise Declined(f"output '{output.name}' of the body needs a node inside it")
        if replacement.is_graph_output():
            raise Declined(f"'{output.name}' and '{replacement.name}' are both outputs")

    def replace(self, node: ir.Node, result: ir.Value, *, name: str | None = None) -> None:
        """Let `result`, just made, replace the output of `node`, and drop `node`.

        Args:
            node: the node to drop.
            result: the output of a node that `add` made.
            name: the node name that the new node takes over, so that users recognize it.
        """
        maker = result.producer()
        if name is not None and maker is not None:
            maker.name = name
        self.forward(node.outputs[0], result)
        self.drop(node)

    def stand_in(self, node: ir.Node, output: ir.Value, value: ir.Value) -> None:
        """Let `value` replace `output` of `node`, through an Identity if it cannot take its name."""
        try:
            self.require_bypass(node, output, value)
        except Declined:
            value = self.add("Identity", [value], before=node, like=output)
        self.forward(output, value)

    def forward(self, old: ir.Value, new: ir.Value) -> None:
        """Let all readers of `old` read `new`; if `old` is a graph output, `new` takes over its name."""
        if new.type is None:
            new.type = old.type
        if new.shape is None and old.shape is not None:
            new.shape = old.shape.copy()
        if old.is_graph_output():
            take_over_output(old, new, aside=self.names.fresh(f"{old.name}_inner"))
        old.replace_all_uses_with(new)

    def drop(self, node: ir.Node) -> None:
        """Remove `node`, and all that only it needed, unless something reads it."""
        drop_node(node)
