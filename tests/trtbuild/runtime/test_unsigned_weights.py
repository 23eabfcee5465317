"""Large INT8 weights become unsigned ones of the same values, where ONNX Runtime would make them so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser
import pytest

from trtbuild.runtime import onnxruntime as runtime
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.runtime.unsigned_weights import with_unsigned_weights

if TYPE_CHECKING:
    from pathlib import Path

WIDE = 1024  # a weight of a megabyte

HEAD = f"""<ir_version: 8, opset_import: ["" : 17]>
n (float[N, {WIDE}] x) => (float[N, {WIDE}] y)
<float s = {{0.02}}, ZERO, float ws = {{0.01}}, int8 wz = {{-3}}>"""
BODY = """{
  xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
  wd = DequantizeLinear (w, ws, wz)
  LAYER
  aq = QuantizeLinear (a, s, z)  y = DequantizeLinear (aq, s, z)
}"""
UNSIGNED, SIGNED = "uint8 z = {120}", "int8 z = {0}"


def saved(folder: Path, layer: str, zero: str = UNSIGNED) -> Path:
    """A network of one layer, with its weight in a file beside it."""
    text = HEAD.replace("ZERO", zero) + BODY.replace("LAYER", layer)
    proto = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).integers(-127, 127, (WIDE, WIDE), endpoint=True)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.int8), "w"))
    onnx.checker.check_model(proto)
    path = folder / "n.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="n.data")
    return path


def test_the_values_stay_the_same(tmp_path) -> None:
    path = saved(tmp_path, "a = MatMul (xd, wd)")
    content, made = with_unsigned_weights(path.read_bytes(), tmp_path)
    constants = {one.name: one for one in onnx.load_from_string(content).graph.initializer}
    signed = onnx.numpy_helper.to_array(
        next(one for one in onnx.load(path).graph.initializer if one.name == "w")
    )
    zero = onnx.numpy_helper.to_array(constants["wz"])
    assert zero.dtype == made["w"].dtype == np.uint8
    assert constants["w"].data_type == onnx.TensorProto.UINT8
    np.testing.assert_array_equal(made["w"].astype(int) - int(zero), signed.astype(int) - (-3))


@pytest.mark.parametrize(
    ("layer", "zero"),
    [
        ("a = MatMul (xd, wd)", SIGNED),
        ("a = MatMul (x, wd)", UNSIGNED),
        ("a = MatMul (wd, wd)", UNSIGNED),
        ("b = MatMul (xd, wd)  a = Add (b, wd)", UNSIGNED),
        ("b = DequantizeLinear (w, ws, wz)  c = MatMul (xd, wd)  a = Add (b, c)", UNSIGNED),
    ],
)
def test_weights_that_are_read_otherwise_are_left_alone(layer, zero, tmp_path) -> None:
    content = saved(tmp_path, layer, zero).read_bytes()
    assert with_unsigned_weights(content, tmp_path) == (content, {})


@pytest.mark.parametrize("from_file", [True, False])
def test_a_processor_without_vnni_computes_the_same_bits(from_file, tmp_path, monkeypatch) -> None:
    from trtbuild.model import read_model, write_model

    path = saved(tmp_path, "a = MatMul (xd, wd)")
    feeds = {"x": np.random.default_rng(1).uniform(-2, 2, (5, WIDE)).astype(np.float32)}
    monkeypatch.setattr(runtime, "multiplies_exactly", lambda: False)
    wanted = open_session(onnx.load(path).SerializeToString()).run(feeds)["y"]
    for name in ("reading._WORTH_APART", "outside_weights.MAPPED_LIMIT"):
        monkeypatch.setattr(f"trtbuild.model.{name}", 0)
    made: list[str] = []

    def noted(content: bytes, folder: Path):
        changed, found = with_unsigned_weights(content, folder)
        made.extend(found)
        return changed, found

    monkeypatch.setattr("trtbuild.runtime.unsigned_weights.with_unsigned_weights", noted)
    model = read_model(path)
    whole = tmp_path / "whole.onnx"
    write_model(model, whole)
    found = open_session(whole if from_file else model).run(feeds)["y"]
    assert made == ["w"]
    np.testing.assert_array_equal(found, wanted)


def test_a_file_that_is_too_short_is_left_to_onnxruntime_to_report(tmp_path) -> None:
    content = saved(tmp_path, "a = MatMul (xd, wd)").read_bytes()
    (tmp_path / "n.data").write_bytes(b"short")
    assert with_unsigned_weights(content, tmp_path) == (content, {})
