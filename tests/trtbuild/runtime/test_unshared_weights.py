"""INT8 weights that layers share: each layer gets its own copy if ONNX Runtime needs it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from trtbuild.errors import ExecutionError
from trtbuild.model.traversal import proto_nodes
from trtbuild.runtime import onnxruntime as runtime
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.runtime.unshared_weights import with_unshared_weights

WIDE = 300  # weights of 90 kB are stored beside the network

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


def network(second: str, largest: int = 20) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(HEAD + BODY % second)
    rng = np.random.default_rng(0)
    for name in ("w", "v") if "(v," in second else ("w",):
        weight = rng.integers(-largest, largest, (WIDE, WIDE), endpoint=True).astype(np.int8)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("shared", SHARED)
def test_each_layer_gets_a_weight_of_its_own_with_the_same_values(shared: str) -> None:
    proto = network(SHARED[shared])
    content, added = with_unshared_weights(proto.SerializeToString())
    found = onnx.load_from_string(content)
    onnx.checker.check_model(found)
    multiplied = [node.input[1] for node in proto_nodes(found.graph) if node.op_type == "MatMul"]
    dequantized = {
        node.output[0]: node.input[0] for node in found.graph.node if "Deq" in node.op_type
    }
    weights = [dequantized[name] for name in multiplied]
    copies = [name for name, other in added.items() if other == "w"]
    assert len(set(weights)) == len(weights) == len(copies) + 1
    values = {one.name: onnx.numpy_helper.to_array(one) for one in found.graph.initializer}
    for name in weights:
        assert np.array_equal(values[name], values["w"])


def test_a_network_that_shares_none_stays_as_it_is() -> None:
    content = network("b = Relu (ad)").SerializeToString()
    assert with_unshared_weights(content) == (content, {})


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
    monkeypatch.setattr(runtime, "multiplies_exactly", lambda: False)
    found = open_session(read_model(path) if in_memory else path).run(feeds)["y"]
    assert np.abs(found - wanted).max() <= 0.02 * 1.01  # a tie may be rounded up or down


def agrees_without_vnni(proto: onnx.ModelProto, monkeypatch, **feeds: np.ndarray) -> None:
    """Run a network as on a processor without VNNI, and compare it with itself in float."""
    x = np.random.default_rng(1).uniform(-2.5, 2.5, (5, WIDE)).astype(np.float32)
    content = proto.SerializeToString()
    wanted = open_session(content, Execution.REFERENCE).run({"x": x, **feeds})
    monkeypatch.setattr(runtime, "multiplies_exactly", lambda: False)
    found = open_session(content).run({"x": x, **feeds})
    for name in wanted:
        assert np.abs(found[name] - wanted[name]).max() <= 0.02 * 1.01


OTHER_WEIGHT = "w2 = DequantizeLinear (v, ws, wz)  b = MatMul (ad, w2)"


@pytest.mark.parametrize("second", [*SHARED.values(), OTHER_WEIGHT])
def test_weights_of_the_whole_range_may_share_a_zero_point(second: str, monkeypatch) -> None:
    agrees_without_vnni(network(second, largest=127), monkeypatch)


def test_weights_in_nodes_may_be_shared(monkeypatch) -> None:
    proto = network(SHARED["a weight"], largest=127)
    weight = proto.graph.initializer.pop()
    assert weight.name == "w"
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
    agrees_without_vnni(proto, monkeypatch)


def test_a_dequantized_weight_may_be_an_output_too(monkeypatch) -> None:
    proto = network("b = Relu (ad)", largest=127)
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [WIDE, WIDE])
    )
    agrees_without_vnni(proto, monkeypatch)


def test_a_weight_that_the_caller_may_pass_is_taken_from_him_by_each_layer(monkeypatch) -> None:
    proto = network(SHARED["a weight"])
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.INT8, [WIDE, WIDE])
    )
    agrees_without_vnni(proto, monkeypatch, w=np.eye(WIDE, dtype=np.int8) * 50)


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
n (float[N, 40] x, bool[1] c) => (float[N, 40] y)
<float s = {0.02}, uint8 z = {128}, float ws = {0.01}, int8 wz = {0}>{
  xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
  y = If (c) <
    then_branch = then () => (float[N, 40] to) {
      d = DequantizeLinear (w, ws, wz)  ta = MatMul (xd, d)
      tq = QuantizeLinear (ta, s, z)  td = DequantizeLinear (tq, s, z)  to = MatMul (td, d) },
    else_branch = else () => (float[N, 40] eo) {
      d = DequantizeLinear (v, ws, wz)  ea = MatMul (xd, d)
      eq = QuantizeLinear (ea, s, z)  ed = DequantizeLinear (eq, s, z)  eo = MatMul (ed, d) }
  >
}"""


def test_branches_that_use_a_name_for_two_weights_keep_theirs() -> None:
    proto = onnx.parser.parse_model(BRANCHES)
    weights = {"w": np.eye(40, dtype=np.int8), "v": 2 * np.eye(40, dtype=np.int8)}
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.checker.check_model(proto)
    x = np.random.default_rng(1).uniform(-2, 2, (3, 40)).astype(np.float32)
    changed = with_unshared_weights(proto.SerializeToString())[0]
    for branch in (True, False):
        feeds = {"x": x, "c": np.array([branch])}
        wanted = open_session(proto.SerializeToString(), Execution.REFERENCE).run(feeds)["y"]
        found = open_session(changed, Execution.REFERENCE).run(feeds)["y"]
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("shared", ["a weight", "its DequantizeLinear"])
@pytest.mark.parametrize("is_by_channel", [False, True])
def test_zero_points_that_are_left_out_are_written(
    is_by_channel: bool, shared: str, monkeypatch
) -> None:
    """ONNX Runtime 1.23 ended the process over them."""
    proto = network(SHARED[shared], largest=127)
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == "w":
            del node.input[2]
            if is_by_channel:
                node.attribute.append(onnx.helper.make_attribute("axis", 1))
    if is_by_channel:
        scale = next(one for one in proto.graph.initializer if one.name == "ws")
        scales = np.full(WIDE, 0.01, np.float32)
        scale.CopyFrom(onnx.numpy_helper.from_array(scales, "ws"))
    found = onnx.load_from_string(with_unshared_weights(proto.SerializeToString())[0])
    onnx.checker.check_model(found)
    values = {one.name: onnx.numpy_helper.to_array(one) for one in found.graph.initializer}
    zeros = [values[n.input[2]] for n in found.graph.node if n.input[0] in values]
    assert [zero.shape for zero in zeros] == 2 * [(WIDE,) if is_by_channel else ()]
    assert not np.any(zeros)
    agrees_without_vnni(proto, monkeypatch)


@pytest.mark.parametrize("op_type", ["Constant", "DequantizeLinear", "MatMulInteger"])
@pytest.mark.parametrize("inputs", [[], ["w"]])
def test_onnxruntime_says_what_is_wrong_with_a_node(op_type: str, inputs, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "multiplies_exactly", lambda: False)
    proto = network("b = Relu (ad)")
    proto.graph.node.insert(0, onnx.helper.make_node(op_type, inputs, ["odd"]))
    with pytest.raises(ExecutionError, match=op_type):
        open_session(proto.SerializeToString())
