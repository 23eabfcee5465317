"""Splits grouped convolutions, for engines without groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.model.attributes import attribute, input_at
from trtbuild.model.constants import array
from trtbuild.model.traversal import label
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["SplitGroupedConv"]


class SplitGroupedConv(Pass):
    """Write a grouped convolution as one convolution per group.

    Pattern: Conv with more than one group.
    Conditions: constant weights and bias. TensorRT runs groups natively: on request.
    Effect: ``Split -> one Conv per group -> Concat``.
    Source: MNN ``TransformGroupConvolution``.
    """

    name = "split_grouped_conv"
    opt_in = True
    anchors = frozenset({"Conv"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace `node`."""
        groups = int(attribute(node, "group", 1))
        if groups == 1:
            return None
        weight, operand = array(node.inputs[1]), input_at(node, 2)
        bias = array(operand)
        if weight is None or (operand is not None and bias is None):
            raise Declined("its weights are not constant")
        pieces = self._split(node, groups, weight.shape[1], edit)
        rest = {key: item.value for key, item in node.attributes.items() if key != "group"}
        results = []
        for place, piece in enumerate(pieces):
            operands = [piece, self._part(weight, place, groups, node, "weight", edit)]
            if bias is not None:
                operands.append(self._part(bias, place, groups, node, "bias", edit))
            results.append(edit.add("Conv", operands, rest, before=node))
        output = node.outputs[0]
        edit.replace(node, edit.add("Concat", results, {"axis": 1}, before=node, like=output))
        return f"became {groups} Convs"

    def _split(self, node: ir.Node, groups: int, size: int, edit: Editor) -> list[ir.Value]:
        sizes = [size] * groups
        operands, attributes = [node.inputs[0]], {"axis": 1}
        if edit.opset < 13:
            attributes["split"] = sizes  # type: ignore[assignment]
        else:
            hint = f"{label(node)}_sizes"
            operands.append(edit.constant(np.array(sizes, np.int64), near=node, hint=hint))
        first = edit.add("Split", operands, attributes, before=node, outputs=groups)
        split = first.producer()
        assert split is not None, "it was just made"
        return list(split.outputs)

    def _part(
        self,
        content: np.ndarray[Any, np.dtype[Any]],
        place: int,
        groups: int,
        node: ir.Node,
        kind: str,
        edit: Editor,
    ) -> ir.Value:
        part = np.split(content, groups, axis=0)[place]
        return edit.constant(part, near=node, hint=f"{label(node)}_{kind}_{place}")
