"""LSTM weights in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.constants import array
from trtbuild.model.traversal import label, maker
from trtbuild.passes.declined import Declined
from trtbuild.passes.pass_base import Pass
from trtbuild.passes.symmetric_weights import quantize_rows

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["QuantizeLstmWeights"]


class QuantizeLstmWeights(Pass):
    """Keep the weights of an LSTM in int8.

    Pattern: LSTM.
    Conditions: W and R are constant floats; opset 13 or newer (19 for float16). Changes numbers:
        on request.
    Effect: W and R in int8 with one symmetric scale per output row (shared by the two directions)
        and a DequantizeLinear; activations stay float.
    Source: MNN ``LSTMWeightInt8``.
    """

    name = "quantize_lstm_weights"
    opt_in = True
    exact = False
    anchors = frozenset({"LSTM"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Quantize W and R of `node`."""
        if any(maker(node.inputs[place], "DequantizeLinear") for place in (1, 2)):
            return None
        contents = [array(node.inputs[place]) for place in (1, 2)]
        if any(content is None or content.dtype.kind != "f" for content in contents):
            raise Declined("W and R are not constant floats")
        for place, content in zip((1, 2), contents):
            if content is not None:
                hint = f"{label(node)}_{'W' if place == 1 else 'R'}"
                node.replace_input_with(place, quantize_rows(content, 1, hint, node, edit))
        return "has int8 weights"
