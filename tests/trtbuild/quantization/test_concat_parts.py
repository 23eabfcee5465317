"""In ONNX Runtime's form, a tensor that only a Concat reads has its scale, if its Relu allows."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibrators import Calibration, TensorRange
from trtbuild.model import name_nodes
from trtbuild.quantization import place, place_by_ranges, place_portable, watched_tensors


def network(second: str) -> ir.Model:
    """Two convolutions, followed by a Relu and by `second`, concatenated, and a third that reads both."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{
            c1 = Conv (x, w1)
            a = Relu (c1)
            c2 = Conv (x, w2)
            b = {second} (c2)
            joined = Concat <axis = 1> (a, b)
            y = Conv (joined, w3)
        }}
    """
    proto = onnx.parser.parse_model(text)
    for name, shape in {"w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 8, 1, 1)}.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        )
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    return model


@pytest.mark.parametrize(
    ("second", "shares_first", "shares_second"),
    [
        ("Relu", True, True),
        # with the Sigmoid's part, the Concat may need a zero point that cannot replace the Relu
        ("Sigmoid", False, True),
    ],
)
def test_parts_that_only_a_concat_reads_take_its_scale(second, shares_first, shares_second):
    model = network(second)
    roots = place_portable(model, place(model)).roots
    assert roots["joined"] == {"joined"}
    assert (roots["a"] == {"joined"}) is shares_first
    assert (roots["b"] == {"joined"}) is shares_second


def test_a_part_that_others_read_keeps_its_own_scale():
    model = network("Relu")
    extra = ir.node(
        "Conv", [model.graph[1].outputs[0], model.graph.initializers["w1"]], name="other"
    )
    extra.outputs[0].name = "z"
    model.graph.append(extra)
    model.graph.outputs.append(extra.outputs[0])
    roots = place_portable(model, place(model)).roots
    assert roots["a"] == {"a"}
    assert roots["b"] == {"joined"}


@pytest.mark.parametrize(("ratio", "apart"), [(1.9, False), (2.1, True)])
def test_a_part_that_others_read_does_not_take_the_scale_of_a_wider_one(ratio, apart):
    """A shared scale must not cost another reader of the part more than one of its eight bits."""
    model = network("Sigmoid")
    other = ir.node("Conv", [model.graph[1].outputs[0], model.graph.initializers["w1"]], name="z")
    other.outputs[0].name = "z"
    model.graph.append(other)
    model.graph.outputs.append(other.outputs[0])
    amax = dict.fromkeys(watched_tensors(model), 1.0) | {"b": ratio}
    ranges = {n: TensorRange(m, m, -m, m, "minmax", "", 9, 0) for n, m in amax.items()}
    placement, _ = place_by_ranges(model, Calibration("minmax", ranges))
    (concat,) = (one for one in placement.groups if one.op_type == "Concat")
    assert concat.int8
    assert placement.roots["a"] == ({"a"} if apart else {"a", "b"})
    assert placement.roots["joined"] == ({"b"} if apart else {"a", "b"})
    assert placement.consumers.keys() == {"x", "a", "b", "joined"}
