"""INT8 weights that layers share: each gets its own, where ONNX Runtime cannot do otherwise."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from trtbuild.model.own_weights import with_own_weights
from trtbuild.model.traversal import proto_nodes
from trtbuild.runtime import onnxruntime as runtime
from trtbuild.runtime.onnxruntime import Execution, open_session

WIDE = 300  # weights of 90 kB lie beside the network

HEAD = f"""<ir_version: 8, opset_import: ["" : 17]>
n (float[N, {WIDE}] x) => (float[N, {WIDE}] y)
<float s = {{0.02}}, uint8 z = {{128}}, float ws = {{0.01}}, int8 wz = {{0}}>"""
BODY = """{
  xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
  w1 = DequantizeLinear (w, ws, wz)
  a = MatMul (xd, w1)
  aq = QuantizeLinear (a, s, z)  ad = DequantizeLinear (aq, s, z)
  %s
  bq = QuantizeLinear (b, s, z)  y = DequantizeLinear (bq, s, z)
}"""
SHARED = {
    "a weight": "w2 = DequantizeLinear (w, ws, wz)  b = MatMul (ad, w2)",
    "its DequantizeLinear": "b = MatMul (ad, w1)",
    "both": "w2 = DequantizeLinear (w, ws, wz)  c = MatMul (ad, w2)  d = MatMul (ad, w1)  b = Add (c, d)",
}


def network(second: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(HEAD + BODY % second)
    weight = np.random.default_rng(0).integers(-20, 21, (WIDE, WIDE)).astype(np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("shared", SHARED)
def test_each_layer_gets_a_weight_of_its_own_with_the_same_values(shared: str) -> None:
    proto = network(SHARED[shared])
    content, added = with_own_weights(proto.SerializeToString())
    found = onnx.load_from_string(content)
    onnx.checker.check_model(found)
    multiplied = [node.input[1] for node in proto_nodes(found.graph) if node.op_type == "MatMul"]
    dequantized = {
        node.output[0]: node.input[0] for node in found.graph.node if "Deq" in node.op_type
    }
    weights = [dequantized[name] for name in multiplied]
    assert len(set(weights)) == len(weights) == len(added) + 1
    values = {one.name: onnx.numpy_helper.to_array(one) for one in found.graph.initializer}
    for name in weights:
        assert np.array_equal(values[name], values["w"])


def test_a_network_that_shares_none_stays_as_it_is() -> None:
    content = network("b = Relu (ad)").SerializeToString()
    assert with_own_weights(content) == (content, {})


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_processor_without_vnni_runs_shared_weights(
    shared: str, in_memory: bool, tmp_path, monkeypatch
) -> None:
    from trtbuild.model import read_model

    path = tmp_path / "n.onnx"
    onnx.save(network(SHARED[shared]), path)
    feeds = {"x": np.random.default_rng(1).uniform(-2.5, 2.5, (5, WIDE)).astype(np.float32)}
    wanted = open_session(path, Execution.REFERENCE).run(feeds)["y"]
    monkeypatch.setattr(runtime, "_multiplies_exactly", lambda: False)
    found = open_session(read_model(path) if in_memory else path).run(feeds)["y"]
    assert np.abs(found - wanted).max() <= 0.02 * 1.01  # a tie may be rounded to either step
