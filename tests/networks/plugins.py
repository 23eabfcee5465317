"""Networks with operators that ONNX Runtime does not have, as ONNX text with their weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

__all__ = ["DETECTOR", "NESTED", "SPLIT", "network"]

# A detector that ends in a plugin; the anchors are a constant, and only the plugin reads the input of sizes.
DETECTOR = """
    <ir_version: 9, opset_import: ["" : 17, "acme.plugins" : 3]>
    net (float[N, 3, 8, 8] x, float[N, 2] sizes) => (int32[N, 1] count, float[N, 4] found)
    <float[1, 4] anchors = {1.0, 2.0, 3.0, 4.0}, float[8, 3, 3, 3] w1, float[4, 8, 3, 3] w2> {
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
        r1 = Relu(c1)
        boxes = Conv <pads = [1, 1, 1, 1]> (r1, w2)
        scale = Constant <value = float {2.0}> ()
        scaled = Mul(anchors, scale)
        kept, found = acme.plugins.Decode <mode = "xywh", limit = 0.25, steps = [1, 2]> (boxes, scaled, sizes)
        count = Cast <to = 6> (kept)
    }
"""

# A plugin in ONNX's own domain between two parts, a branch past it, and an output in front of it.
SPLIT = """
    <ir_version: 8, opset_import: ["" : 11]>
    net (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y, float[N, 8, 8, 8] early)
    <float[8, 3, 3, 3] w1, float[8, 8, 3, 3] w2, float[4, 8, 1, 1] w3> {
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
        early = Relu(c1)
        c2 = Conv <pads = [1, 1, 1, 1]> (early, w2)
        warped = WarpByFlow(c2)
        both = Add(warped, early)
        y = Conv(both, w3)
    }
"""

# A plugin in the body of an If that captures a tensor of the main graph.
NESTED = """
    <ir_version: 9, opset_import: ["" : 17, "acme" : 1]>
    net (float[N, 3, 8, 8] x, bool yes) => (y)
    <float[8, 3, 3, 3] w1> {
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)
        y = If (yes) <
            then_branch = yes () => (a) { a = acme.Sharpen(c1) },
            else_branch = no () => (b) { b = Relu(c1) }
        >
    }
"""


def network(text: str) -> onnx.ModelProto:
    """The network of `text`; weights without values are random."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(5)
    for value in list(proto.graph.value_info):
        if value.name.startswith("w"):
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            drawn = (rng.normal(size=shape) / 4).astype(np.float32)
            if value.name not in {one.name for one in proto.graph.initializer}:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(drawn, value.name))
    for node in proto.graph.node:
        node.name = f"{node.op_type.lower()}_{node.output[0]}"
    return proto
