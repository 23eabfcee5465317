"""A network that is quantized already and has its weights in a separate file: both forms share it."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.command import trtbuild
from trtbuild.model import outside_weights, writing

WIDE = 64
FORM, ENGINE = "n.int8.onnx", "n.onnxruntime.onnx"
PATIENCE_S = 20.0


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A command that builds a network with every weight in a separate file."""
    for module in (outside_weights, writing):
        monkeypatch.setattr(module, "MAPPED_LIMIT", 1)
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 17]> g (float[N, {WIDE}] x) => (float[N, {WIDE}] y)'
        "<float s = {0.05}, float t = {0.01}, int8 z = {0}> {"
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
        "v = DequantizeLinear(w, t, z) y = MatMul(d, v) }"
    )
    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, (WIDE, WIDE)).astype(np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path, data = tmp_path / "n.onnx", tmp_path / "x.npy"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=1024)
    np.save(data, random.normal(size=(16, WIDE)).astype(np.float32))
    return ["engine", path, "--int8", "--data", data, "--backend", "onnxruntime", "--no-latency",
            "-o", tmp_path / "out"]  # fmt: skip


def test_writing_one_form_does_not_disturb_the_other(build, tmp_path, capsys, monkeypatch) -> None:
    """The form for TensorRT keeps references to its weight files while the engine is written."""
    form_named, engine_begun, form_done = (threading.Event() for _ in range(3))
    save, save_proto = ir.save, onnx.save

    def watched(model, path, *args, callback, **options):
        def begun(*each):
            if path.name == ENGINE:
                engine_begun.set()
                form_done.wait(PATIENCE_S)
            callback(*each)

        if path.name == ENGINE:
            form_named.wait(PATIENCE_S)
        save(model, path, *args, callback=begun, **options)
        if path.name == FORM:
            form_done.set()

    def named(proto, path, *args, **options):
        if path.name == FORM:
            form_named.set()
            engine_begun.wait(PATIENCE_S)
        save_proto(proto, path, *args, **options)

    monkeypatch.setattr(ir, "save", watched)
    monkeypatch.setattr(onnx, "save", named)
    outcome = trtbuild(capsys, *build)
    assert outcome.code == 0, outcome.err
    assert form_done.is_set()
    assert engine_begun.is_set()
    forms = [onnx.load(tmp_path / "out" / name) for name in (FORM, ENGINE)]
    first, second = ([one.raw_data for one in form.graph.initializer] for form in forms)
    assert first == second
