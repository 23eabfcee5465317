"""Caches to Q/DQ and back: every scale to the bit, and a report on each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrators.cache import CalibrationCache
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.errors import InputError, ModelError
from trtbuild.json_codec import encode
from trtbuild.migration import Fate, to_cache, to_qdq
from trtbuild.model import name_nodes, read_model
from trtbuild.quantization.scale_propagation import propagate
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "TRT-101601-EntropyCalibration2"


def _bits(scale: np.float32) -> int:
    return int(np.float32(scale).view(np.uint32))


def _scales_in(model: ir.Model) -> dict[str, int]:
    """Tensor -> bits of the scale of its QuantizeLinear."""
    found = {}
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            assert node.inputs[0] is not None
            assert node.inputs[1] is not None
            assert node.inputs[1].const_value is not None
            found[node.inputs[0].name or ""] = _bits(node.inputs[1].const_value.numpy().reshape(()))
    return found


def _cache_of(model: ir.Model) -> CalibrationCache:
    artifact = networks.calibrated("N")
    assert artifact.calibration is not None
    calibration = artifact.calibration
    return CalibrationCache(HEADER, {name: calibration.scale(name) for name in calibration.ranges})


def test_a_cache_becomes_the_network_that_the_calibration_gives() -> None:
    artifact = networks.calibrated("N")
    assert artifact.quantized is not None
    migration = to_qdq(artifact.model, _cache_of(artifact.model))
    assert _scales_in(migration.model) == _scales_in(artifact.quantized)
    feeds = networks.batches(1, 3)[0]
    ours = open_session(migration.model, Execution.REFERENCE).run(feeds)["scores"]
    theirs = open_session(artifact.quantized, Execution.REFERENCE).run(feeds)["scores"]
    np.testing.assert_array_equal(ours, theirs)
    assert [d for d in migration.decisions if d.int8] == [d for d in artifact.decisions if d.int8]


@given(st.integers(min_value=1, max_value=0x7F7FFFFF))
@settings(max_examples=60)
def test_scales_survive_both_ways_to_the_bit(word: int) -> None:
    """Any positive float32, subnormal ones too: through amax and back it would change."""
    scale = np.uint32(word).view(np.float32)
    model = networks.network("N")
    names = [v.name for v in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs))]
    cache = CalibrationCache(HEADER, {name or "": scale for name in names})
    there = to_qdq(model, CalibrationCache.from_bytes(cache.to_bytes()))
    assert set(_scales_in(there.model).values()) == {word}
    back = to_cache(there.model, "10.16.1")
    assert back.cache is not None
    again = CalibrationCache.from_bytes(back.cache.to_bytes())
    assert again.header == HEADER
    assert {_bits(s) for s in again.scales.values()} == {word}


def test_every_scale_has_a_fate() -> None:
    artifact = networks.calibrated("N")
    scales = dict(_cache_of(artifact.model).scales)
    moved = scales.pop("pooled")
    scales |= {
        "flat": moved,  # after the Flatten whose input needs it
        "c2": np.float32(0.3),
        "(Unnamed Layer* 7) [Shuffle]_output": np.float32(0.5),
        "gone": np.float32(0.25),
        "sum": np.float32(0.0),
        "scores": np.float32(np.inf),
    }
    migration = to_qdq(artifact.model, CalibrationCache(HEADER, scales))
    fates = {entry.tensor: entry for entry in migration.entries}
    assert list(fates) == list(scales)
    assert fates["images"].fate is Fate.MATCHED
    assert fates["flat"].fate is Fate.MAPPED
    assert (fates["flat"].tensors, fates["flat"].through) == (("pooled",), ("Flatten",))
    assert fates["c2"].fate is Fate.UNNEEDED
    assert fates["(Unnamed Layer* 7) [Shuffle]_output"].fate is Fate.LOST_UNNAMED
    assert fates["gone"].fate is Fate.LOST_UNKNOWN
    assert fates["sum"].fate is Fate.LOST_ZERO
    assert fates["scores"].fate is Fate.LOST_INFINITE
    json.dumps(encode(migration.entries), allow_nan=False)
    gemm = next(d for d in migration.decisions if d.op_type == "Gemm")
    assert gemm.int8


def test_a_scale_is_mapped_through_operators_that_keep_values() -> None:
    model = _chain("t = Transpose(r) d = Dropout(t) i = Identity(d) y = MatMul(i, w)")
    migration = to_qdq(model, CalibrationCache(HEADER, {"r": np.float32(0.125)}))
    (entry,) = migration.entries
    needed = _scales_in(migration.model)
    assert set(needed.values()) == {_bits(np.float32(0.125))}
    assert entry.fate in (Fate.MATCHED, Fate.MAPPED)
    backwards = to_qdq(model, CalibrationCache(HEADER, {"i": np.float32(0.125)}))
    assert backwards.entries[0].fate is not Fate.UNNEEDED
    assert set(_scales_in(backwards.model).values()) == {_bits(np.float32(0.125))}


def test_a_scale_is_not_mapped_through_operators_that_change_values() -> None:
    model = _chain("m = MatMul(r, w) t = Sigmoid(m) y = MatMul(t, w)")
    scales = {name: np.float32(0.125) for name in ("r", "m")}
    migration = to_qdq(model, CalibrationCache(HEADER, scales))
    assert [entry.fate for entry in migration.entries] == [Fate.MATCHED, Fate.UNNEEDED]
    assert list(_scales_in(migration.model)) == ["r"]
    first, matmul = (d for d in migration.decisions if d.op_type == "MatMul")
    assert first.int8
    assert not matmul.int8
    assert matmul.reason == "the cache has no scale for tensor 't'"


def test_a_pool_does_not_hand_its_scale_back() -> None:
    """MaxPool's output holds only a part of its input's values; the input's range may be wider."""
    model = _chain("p = MaxPool <kernel_shape = [1]> (r) y = MatMul(p, w)", shape="1, 4, 4")
    propagated = propagate(model, {"p": np.float32(0.5)})
    assert "r" not in propagated
    assert propagate(model, {"r": np.float32(0.5)})["p"].value == np.float32(0.5)


@pytest.mark.parametrize("operator", ["Relu", "Identity"])
def test_a_fork_stops_a_scale_on_its_way_back(operator: str) -> None:
    """Other readers of the tensor may need values that the operator clips."""
    behind = {"b": np.float32(0.5)}
    straight = _chain(f"a = Sigmoid(r) b = {operator}(a) y = MatMul(b, w)")
    assert propagate(straight, behind)["a"].value == np.float32(0.5)
    forked = _chain(f"a = Sigmoid(r) b = {operator}(a) c = Sub(b, a) y = MatMul(c, w)")
    assert "a" not in propagate(forked, behind)
    # an output of the network holds negative values that a Relu after it removes
    straight.graph.outputs.append(
        next(n for n in straight.graph if n.op_type == "Sigmoid").outputs[0]
    )
    assert ("a" in propagate(straight, behind)) is (operator == "Identity")


def test_layers_without_a_scale_stay_float_and_the_network_still_runs() -> None:
    artifact = networks.calibrated("N")
    scales = dict(_cache_of(artifact.model).scales)
    del scales["images"]
    migration = to_qdq(artifact.model, CalibrationCache(HEADER, scales))
    reasons = {d.node: d.reason for d in migration.decisions if not d.int8}
    assert reasons["Conv_c1"] == "the cache has no scale for tensor 'images'"
    weights = [n for n in migration.model.graph if n.op_type == "DequantizeLinear"
               and n.inputs[0].const_value is not None]  # fmt: skip
    assert len(weights) == 2  # Conv_c2 and the Gemm
    open_session(migration.model).run(networks.batches(1, 2)[0])


def test_q_dq_taken_out_leave_the_network_and_a_cache() -> None:
    artifact = networks.calibrated("N")
    assert artifact.quantized is not None
    migration = to_cache(artifact.quantized, "10.3.0")
    assert migration.cache is not None
    assert migration.cache.header == "TRT-100300-EntropyCalibration2"
    ops = {node.op_type for node in migration.model.graph}
    assert not ops & {"QuantizeLinear", "DequantizeLinear"}
    feeds = networks.batches(1, 3)[0]
    plain = open_session(migration.model, Execution.REFERENCE).run(feeds)["scores"]
    wanted = open_session(artifact.model, Execution.REFERENCE).run(feeds)["scores"]
    # The weights went through INT8, half a step of amax / 127 each: far less than activations would add.
    assert 0 < np.abs(plain - wanted).max() < 0.02 * np.abs(wanted).max()
    # Fused neighbours have a scale, too: c1 before its Relu, pooled before Flatten.
    assert migration.cache.scales["c1"] == migration.cache.scales["r1"]
    assert "scores" in migration.without_scale


def test_weights_come_back_as_the_same_integers() -> None:
    artifact = networks.calibrated("N")
    assert artifact.quantized is not None
    back = to_cache(artifact.quantized, "10.16.1")
    assert back.cache is not None
    again = to_qdq(back.model, back.cache)

    def integers(model: ir.Model) -> list[bytes]:
        return sorted(
            v.const_value.numpy().tobytes()
            for v in model.graph.initializers.values()
            if v.const_value is not None and v.dtype == ir.DataType.INT8 and v.const_value.size > 99
        )

    assert integers(again.model) == integers(artifact.quantized)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("y = Relu(x)", "has no Q/DQ on activations"),
        ("q = QuantizeLinear(x, s, zu) y = DequantizeLinear(q, s, zu)", "not symmetric INT8"),
        (
            "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s2, z) y = Relu(d)",
            "different scales",
        ),
        ("y = DequantizeLinear(q8, s, z)", "no QuantizeLinear before it"),
    ],
)
def test_what_a_cache_cannot_say_is_refused(body: str, text: str) -> None:
    inputs = "int8[4] q8" if "q8" in body else "float[4] x"
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => (float[4] y) {{ {body} }}'
    )
    values = {"s": np.float32(0.5), "s2": np.float32(0.25), "z": np.int8(0), "zu": np.uint8(128)}
    for name, value in values.items():
        if name in body.replace("(", " ").replace(")", " ").replace(",", " ").split():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    with pytest.raises(ModelError, match=text):
        to_cache(model, "10.16.1")


def test_two_scales_for_one_tensor_are_refused() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) {
            a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)
            c = QuantizeLinear(x, t, z) d = DequantizeLinear(c, t, z)
            y = Add(b, d) }"""
    )
    for name, value in {"s": np.float32(0.5), "t": np.float32(0.25), "z": np.int8(0)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    with pytest.raises(ModelError, match=r"quantized with 0\.5 and with 0\.25"):
        to_cache(model, "10.16.1")


def test_a_public_calibration_becomes_a_q_dq_network(shared: Path) -> None:
    """A network that TensorRT itself calibrated: the Q/DQ network has its scales, bit for bit."""
    folder = shared / "data" / "golden-entropy"
    expected = json.loads((folder / "expected.json").read_text())
    model = read_model(folder / "lenet.onnx")
    scales = {
        name: np.uint32(int(entry["scale_hex"], 16)).view(np.float32)
        for name, entry in expected["lenet"].items()
    }
    migration = to_qdq(model, CalibrationCache(HEADER, scales))
    found = _scales_in(migration.model)
    assert found
    for name, bits in found.items():
        assert bits in {_bits(scale) for scale in scales.values()}, name


def test_real_caches_against_a_network_that_is_not_theirs(shared: Path) -> None:
    """A cache without any matching name is refused; if the input matches, every name is accounted for."""
    model, refused = networks.network("N"), 0
    for path in sorted((shared / "data" / "caches").iterdir()):
        if path.suffix == ".md":
            continue
        cache = CalibrationCache.from_bytes(path.read_bytes())
        if "images" not in cache.scales:
            refused += 1
            with pytest.raises(InputError, match="cache"):
                to_qdq(model, cache)
            continue
        migration = to_qdq(model, cache)
        assert len(migration.entries) == len(cache.scales)
        assert all(
            e.fate.is_lost for e in migration.entries if e.tensor not in ("images", "scores")
        )
    assert refused > 3


@pytest.mark.parametrize(
    ("scales", "text"),
    [
        ({"other": 0.5}, "another network: none of its 1 tensor, such as 'other'"),
        ({}, "0 tensors"),
        ({"images": 0.0, "c1": np.inf}, "of its 2 tensors, 0 have"),
    ],
)
def test_a_cache_that_fits_nothing_is_refused(scales: dict[str, float], text: str) -> None:
    cache = CalibrationCache(HEADER, {name: np.float32(one) for name, one in scales.items()})
    with pytest.raises(InputError, match=text):
        to_qdq(networks.network("N"), cache)


def _chain(body: str, shape: str = "4, 4") -> ir.Model:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[{shape}] x) => (float[{shape}] y) {{
            r = Relu(x) {body} }}"""
    )
    weight = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    return model
