"""A graph pass of your own: ``x * Clip(x + 3, 0, 6) / 6`` becomes HardSwish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.passes import Declined, Editor, OptimizeOptions, Pass, matching, optimize

if TYPE_CHECKING:
    from collections.abc import Iterator


class FuseHardSwish(Pass):
    """Write a hard swish as one operator.

    Pattern: ``x * Clip(x + 3, 0, 6) / 6``.
    Conditions: opset 14 or newer; no other node reads the parts, and none is an output.
    Effect: ``HardSwish(x)``.
    Source: Howard et al. 2019 (MobileNetV3).
    """

    name = "fuse_hard_swish"
    anchors = frozenset({"Div"})

    def rewrite(self, node: ir.Node, edit: Editor) -> str | None:
        """Replace the division `node` and the operators in front of it."""
        product = matching.maker(node.inputs[0], "Mul")
        if product is None or matching.single_value(node.inputs[1]) != 6:
            return None
        for x, gate in _orders(product):
            clip = matching.maker(gate, "Clip")
            shift = None if clip is None else matching.maker(clip.inputs[0], "Add")
            if clip is None or shift is None or shift.inputs[0] is not x:
                continue
            if matching.clip_bounds(clip) != (0, 6) or matching.single_value(shift.inputs[1]) != 3:
                raise Declined("its bounds are not 0 and 6, or its shift is not 3")
            if edit.opset < 14:
                raise Declined("HardSwish came with opset 14")
            for part, reader in ((shift, clip), (clip, product), (product, node)):
                matching.require_private(part.outputs[0], reader)
            result = edit.add("HardSwish", [x], before=node, like=node.outputs[0])
            edit.replace(node, result, name=node.name)
            return "became HardSwish"
        return None


def _orders(product: ir.Node) -> Iterator[tuple[ir.Value | None, ir.Value | None]]:
    left, right = product.inputs
    yield left, right
    yield right, left


NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
swish (float[n, 8] x) => (float[n, 8] y)
<float three = {3.0}, float zero = {0.0}, float six = {6.0}>
{
    shifted = Add(x, three)
    gate = Clip(shifted, zero, six)
    product = Mul(x, gate)
    y = Div(product, six)
}
"""


def main() -> None:
    """Optimize a small network and print the changes."""
    result = optimize(ir.from_onnx_text(NETWORK), OptimizeOptions(passes=[FuseHardSwish()]))
    print(dict(result.before.nodes), "->", dict(result.after.nodes))
    for name, notes in result.log.fired.items():
        print(f"{name}: {notes[0].text}")
    print(result.log.comparison)


if __name__ == "__main__":
    main()
