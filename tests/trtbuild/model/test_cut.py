"""The two parts of a network with foreign operators, and the joined network."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.networks import plugins
from trtbuild.errors import ModelError
from trtbuild.model.cut import cut, operators_outside
from trtbuild.runtime.onnxruntime import has_operator, open_session

X = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)

# ONNX Runtime has com.microsoft's Gelu, so it computes both parts and the whole.
_MEANT = plugins.SPLIT.replace("WarpByFlow(c2)", "com.microsoft.Gelu(c2)").replace(
    '"" : 11', '"" : 17, "com.microsoft" : 1'
)


def parts(text=_MEANT):
    model = ir.from_proto(plugins.network(text))
    foreign = operators_outside(model, lambda domain, _: domain == "")
    return model, *cut(model, foreign)


def test_joined_it_computes_what_it_did():
    model, front, found = parts()
    again = open_session(found.join(front)).run({"x": X})
    for name, wanted in open_session(model).run({"x": X}).items():
        np.testing.assert_array_equal(again[name], wanted)


def test_the_front_has_its_outputs_and_the_tensors_at_the_cut():
    model, front, found = parts()
    assert [value.name for value in front.graph.outputs] == ["early", "c2"]
    assert found.tensors == ("early", "c2")
    assert [node.op_type for node in front.graph] == ["Conv", "Relu", "Conv"]
    assert set(front.graph.initializers) == {"w1", "w2"}
    assert "com.microsoft" not in front.opset_imports
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv", "Gelu", "Add", "Conv"]


def test_names_that_stages_took_since_are_told_apart():
    model, front, found = parts()
    relu = next(node for node in front.graph if node.op_type == "Relu")
    inner = front.graph.node(0).outputs[0]
    inner.name = "y"  # a name of an output of the whole network
    relu.name = "add_both"
    front.graph.initializers["w2"].const_value = front.graph.initializers["w2"].const_value
    front.graph.initializers["w1"].name = "w3"  # a name of a weight in the other part
    joined = found.join(front)
    again = open_session(joined).run({"x": X})
    for name, wanted in open_session(model).run({"x": X}).items():
        np.testing.assert_array_equal(again[name], wanted)
    names = [node.name for node in joined.graph]
    assert len(names) == len(set(names))


def test_constants_and_weights_that_both_read_stand_in_both():
    text = _MEANT.replace(
        "both = Add(warped, early)", "k = Neg(w3) z = Conv(warped, k) both = Add(warped, z)"
    )
    text = text.replace("w3>", "w3>").replace("float[4, 8, 1, 1] w3", "float[8, 8, 1, 1] w3")
    text = text.replace(
        "c2 = Conv <pads = [1, 1, 1, 1]> (early, w2)", "k0 = Conv(early, w3) c2 = Relu(k0)"
    )
    text = text.replace("float[N, 4, 8, 8] y", "float[N, 8, 8, 8] y")
    model, front, found = parts(text)
    assert "w3" in front.graph.initializers
    joined = found.join(front)
    assert "w3" in joined.graph.initializers
    assert "w3_1" not in joined.graph.initializers
    assert found.tensors == ("c2",)
    wanted = open_session(model).run({"x": X})["y"]
    np.testing.assert_array_equal(open_session(joined).run({"x": X})["y"], wanted)


def test_nothing_with_weights_in_front_is_refused():
    text = _MEANT.replace(
        "c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)",
        "x2 = com.microsoft.Gelu(x) c1 = Conv <pads = [1, 1, 1, 1]> (x2, w1)",
    )
    with pytest.raises(ModelError, match=r"com\.microsoft:Gelu 'gelu_x2'"):
        parts(text)


@pytest.mark.parametrize(
    ("domain", "op_type", "has"),
    [
        ("", "Conv", True),
        ("", "EfficientNMS_TRT", False),
        ("com.microsoft", "QuickGelu", True),
        ("com.microsoft", "GroupNorm", False),
        ("trt.plugins", "EfficientNMS_TRT", False),
        ("ai.onnx.ml", "LinearRegressor", True),
    ],
)
def test_what_onnx_runtime_has(domain, op_type, has):
    assert has_operator(domain, op_type) is has
