"""Recognition of masks in front of Softmax."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from trtbuild.model import name_nodes
from trtbuild.quantization.masks import masked_sums, reaches_minus_infinity

# As exporters write a causal mask of open length.
CAUSAL = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 8] y) <int64 one = {1}> {
    a = MatMul(x, w) at = Transpose <perm = [1, 0]> (a) s = MatMul(x, at)
    extents = Shape(s) filled = ConstantOfShape(extents) mask = Trilu <upper = 1> (filled, one)
    scores = Add(s, mask) p = Softmax <axis = -1> (scores) y = MatMul(p, a) }"""


@pytest.mark.parametrize(
    ("hidden", "in_float", "infinite"),
    [
        (-np.inf, {"scores"}, {"filled", "mask", "scores"}),
        (-1e9, {"scores"}, set()),
        (-1000.0, {"scores"}, set()),
        (-999.0, set(), set()),
        (0.0, set(), set()),
    ],
)
def test_a_triangle_of_open_length(hidden: float, in_float: set[str], infinite: set[str]) -> None:
    proto = onnx.parser.parse_model(CAUSAL)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"))
    (filled,) = (node for node in proto.graph.node if node.op_type == "ConstantOfShape")
    value = onnx.numpy_helper.from_array(np.array([hidden], np.float32))
    filled.attribute.append(onnx.helper.make_attribute("value", value))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    sums = {
        node.outputs[0].name
        for node in model.graph
        if node.op_type == "Add" and node.name in masked_sums(model)
    }
    assert sums == in_float
    assert reaches_minus_infinity(model) == infinite
