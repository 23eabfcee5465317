"""Computes arithmetic on constants once instead of in every run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import ExecutionError
from trtbuild.model.attributes import is_random, permutation
from trtbuild.model.constants import array, constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.shapes import element_count, static_dims
from trtbuild.model.traversal import all_graphs, has_bodies
from trtbuild.passes.pass_base import Pass
from trtbuild.runtime.evaluation import evaluate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbuild.passes.editor import Editor

__all__ = ["FoldConstants"]

_LARGEST_GROWTH = 1 << 20
"""Bytes by which a result may exceed the constants it is made from. TensorRT expands constants itself."""

_NOT_FOLDED = frozenset({"Constant", "DequantizeLinear", "DynamicQuantizeLinear"})

_SIZE_FROM_DATA = frozenset(
    {"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)
"""Operators whose result may be huge although their operands are small."""

_SUPPORTED = frozenset("biuf")
"""NumPy kinds that ONNX Runtime takes as arrays: bool, integers, floats."""


class FoldConstants(Pass):
    """Compute nodes that depend on constants only.

    Pattern: a node all of whose operands are constants.
    Conditions: not random; no DequantizeLinear (int8 weights are INT8 information); no overridable
        initializer; the result is at most 1 MiB larger than the constants it comes from; no integer
        division by 0 or -1, which may end the process by a signal.
    Effect: an initializer that ONNX Runtime computed; large Transposes and Reshapes stay views of
        the mapped weights.
    Source: MNN ``ConstantFolding``.
    """

    name = "fold_constants"

    def run(self, edit: Editor) -> None:
        """Fold graph by graph, each in topological order, many nodes in one run of ONNX Runtime."""
        for graph in all_graphs(edit.model.graph):
            batch = _Batch(graph, edit)
            for node in graph:
                batch.offer(node)
            batch.flush()


@dataclass
class _Batch:
    """Nodes of one graph that will be evaluated together."""

    graph: ir.Graph
    edit: Editor
    nodes: dict[ir.Node, None] = field(default_factory=dict)
    made: set[ir.Value] = field(default_factory=set)

    def offer(self, node: ir.Node) -> None:
        """Add `node` if it can be folded."""
        for value in node.inputs:
            if value is not None and value not in self.made and constant_tensor(value) is None:
                return
        if not _foldable(node):
            return
        if _folds_to_view(node):
            self._replace(node.outputs[0], _view(node))
            return
        if any(element_count(output) is None for output in node.outputs):
            self.flush()
            self.edit.infer(node)
        if _divides_integers(node):
            self.flush()  # so that the divisor is known
        reason = _too_large(node) or _deadly(node)
        if reason:
            self.edit.decline(node, reason)
            return
        self.nodes[node] = None
        self.made.update(node.outputs)

    def flush(self) -> None:
        """Evaluate the nodes of the batch together, or one by one if that fails."""
        nodes, self.nodes, self.made = list(self.nodes), {}, set()
        if not nodes:
            return
        try:
            self._evaluate(nodes)
        except ExecutionError:
            for node in nodes:
                try:
                    self._evaluate([node])
                except ExecutionError as error:
                    self.edit.decline(node, f"ONNX Runtime cannot compute it: {error.reason}")

    def _evaluate(self, nodes: list[ir.Node]) -> None:
        group = set(nodes)
        constants: dict[ir.Value, NDArray[Any]] = {}
        for node in nodes:
            for value in node.inputs:
                if value is None or value in constants or value.producer() in group:
                    continue
                content = array(value)
                if content is None or content.dtype.kind not in _SUPPORTED:
                    reason = "an operand is of a type that it does not take"
                    raise ExecutionError(f"ONNX Runtime cannot run a node: {reason}.", reason)
                constants[value] = content
        wanted = [
            output
            for node in nodes
            for output in node.outputs
            if output.is_graph_output() or any(user not in group for user, _ in output.uses())
        ]
        results = evaluate(nodes, constants, wanted, self.edit.model.opset_imports)
        for value, result in zip(wanted, results):
            self._replace(value, result)

    def _replace(self, output: ir.Value, content: NDArray[Any]) -> None:
        self.edit.note(output.name or "", "constant", "computed")
        self.edit.become_constant(output, content)


def _foldable(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type in _NOT_FOLDED or is_random(node):
        return False
    if has_bodies(node):
        return False
    tensors = all(isinstance(output.type, ir.TensorType) for output in node.outputs)
    strings = any(output.dtype == ir.DataType.STRING for output in node.outputs)
    return (
        tensors
        and not strings
        and any(output.uses() for output in node.outputs)
        | any(output.is_graph_output() for output in node.outputs)
    )


def _too_large(node: ir.Node) -> str:
    """Say why the result of `node` is too large to fold; empty if it is not."""
    given = sum(
        tensor.nbytes for value in node.inputs if (tensor := constant_tensor(value)) is not None
    )
    size = 0
    for output in node.outputs:
        count = element_count(output)
        if count is None:
            return "its size is not known" if node.op_type in _SIZE_FROM_DATA else ""
        size += math.ceil(count * (output.dtype or ir.DataType.FLOAT).itemsize)
    return f"it would write {size} bytes" if size > given + _LARGEST_GROWTH else ""


def _divides_integers(node: ir.Node) -> bool:
    dtype = node.outputs[0].dtype
    return node.op_type in ("Div", "Mod") and (dtype is None or dtype.numpy().kind in "iu")


def _deadly(node: ir.Node) -> str:
    """Say why computing `node` could end the process (SIGFPE); empty if it cannot."""
    divisor = array(node.inputs[1]) if _divides_integers(node) else None
    if divisor is None or divisor.dtype.kind not in "iu":
        return ""
    # -1: the least number of an integer type has no positive counterpart
    return "it divides by 0 or -1, as whole numbers" if np.isin(divisor, (0, -1)).any() else ""


_VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def _folds_to_view(node: ir.Node) -> bool:
    if node.op_type not in _VIEWS or static_dims(node.outputs[0]) is None:
        return False
    return all(value is None or constant_tensor(value) is not None for value in node.inputs)


def _view(node: ir.Node) -> NDArray[Any]:
    content, target = array(node.inputs[0]), static_dims(node.outputs[0])
    assert content is not None and target is not None, "see _folds_to_view"  # noqa: PT018
    if node.op_type == "Transpose":
        return np.transpose(content, permutation(node, content.ndim))
    return content.reshape(target)
