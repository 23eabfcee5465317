"""Folds zero Pads into convolutions, and converts Pads of old opsets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.errors import ModelError
from trtbuild.model.attributes import attribute, input_at, normal_axis, pad_widths
from trtbuild.model.constants import integers, single_value
from trtbuild.model.inference import infer_model
from trtbuild.model.opset import raise_opset
from trtbuild.model.shapes import rank
from trtbuild.model.traversal import maker
from trtbuild.passes.declined import Declined, require_private
from trtbuild.passes.pass_base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.editor import Editor

__all__ = ["FusePadIntoConv", "RaisePadOpset"]


class FusePadIntoConv(Pass):
    """Fold a Pad of zeros into the pads of the convolution after it.

    Pattern: ``Pad -> Conv``.
    Conditions: constant mode, value zero, constant widths that are not negative and lie on spatial
        axes only; the Conv has explicit pads or none; the padded tensor has no other reader. A MaxPool pads
        with minus infinity, so a Pad before it stays.
    Effect: ``pads' = pads + widths``.
    Source: MNN ``TransformOnnxPad``.
    """

    name = "fuse_pad_into_conv"
    anchors = frozenset({"Conv"})
    needs = frozenset({"Pad"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Fold the Pad before `node` into it."""
        pad = maker(node.inputs[0], "Pad")
        if pad is None or pad.inputs[0] is None or node.inputs[0] is None:
            return None
        require_private(node.inputs[0], node)
        count = rank(node.inputs[1])
        if count is None:
            raise Declined("the rank is not known")
        before, after = _widths(pad, count)
        if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise Declined("the Conv chooses its pads by itself")
        if any(before[:2]) or any(after[:2]):
            raise Declined("it pads the batch or the channels")
        own = attribute(node, "pads", (0,) * (2 * (count - 2)))
        if attribute(node, "auto_pad", "NOTSET") == "VALID":
            own = (0,) * (2 * (count - 2))
        total = [have + more for have, more in zip(own, (*before[2:], *after[2:]))]
        node.attributes.pop("auto_pad", None)
        edit.set_attribute(node, "pads", total)
        edit.rewire(node, 0, pad.inputs[0])
        return f"pads by {total} itself"


def _widths(pad: ir.Node, count: int) -> tuple[list[int], list[int]]:
    """Return the widths before and behind each axis of a Pad of zeros."""
    if attribute(pad, "mode", "constant") != "constant":
        raise Declined("the Pad repeats or reflects")
    value = input_at(pad, 2)
    fill = attribute(pad, "value", 0.0) if value is None else single_value(value)
    if fill is None or fill != 0:
        raise Declined("the Pad does not fill with zeros")
    widths = pad_widths(pad)
    operand = input_at(pad, 3)
    over = integers(operand) if operand is not None else tuple(range(count))
    if widths is None or over is None or len(widths) != 2 * len(over):
        raise Declined("the widths of the Pad are not constant")
    if min(widths, default=0) < 0:
        raise Declined("the Pad crops")
    before, after = [0] * count, [0] * count
    for place, axis in enumerate(over):
        before[normal_axis(axis, count)] = widths[place]
        after[normal_axis(axis, count)] = widths[place + len(over)]
    return before, after


class RaisePadOpset(Pass):
    """Raise the opset of a network so that the widths of Pad are an input.

    Pattern: a Pad of opset 10 or older, whose widths are attributes.
    Conditions: ONNX's converter can convert all operators of the network.
    Effect: the whole network at opset 13, the first with per-channel quantization.
    Source: MNN ``TransformOnnxPad``.
    """

    name = "raise_pad_opset"
    opt_in = True
    anchors = frozenset({"Pad"})

    def run(self, edit: Editor) -> None:
        """Convert the network if one of its Pads has an old opset."""
        if edit.opset >= 11:
            return
        old = next(edit.nodes(self.anchors), None)
        if old is None:
            return
        try:
            raise_opset(edit.model, 13)
        except ModelError as error:
            edit.decline(old, f"ONNX's converter answered: {error}")
        else:
            infer_model(edit.model)
            edit.note("opset", "network", "raised to 13")
