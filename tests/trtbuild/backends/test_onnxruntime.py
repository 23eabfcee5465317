"""Networks whose weights are too many for one protobuf are opened by a file, which goes with them."""

from __future__ import annotations

import gc

import numpy as np
import onnx_ir as ir
import pytest

from trtbuild.errors import OutputError
from trtbuild.model import model_bytes
from trtbuild.runtime.onnxruntime import Execution, open_session

SIZE = 2200  # 19 MB of weights


def network() -> ir.Model:
    weight = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    x = ir.val("x", ir.DataType.FLOAT, ["N", SIZE])
    w = ir.Value(name="w", const_value=ir.Tensor(weight, name="w"))
    node = ir.node("MatMul", [x, w], name="multiply")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
    graph = ir.Graph(
        [x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 17}, name="g"
    )
    return ir.Model(graph, ir_version=8)


@pytest.mark.parametrize("execution", list(Execution))
def test_weights_in_a_file_give_what_those_in_memory_give(execution, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    feeds = {"x": np.random.default_rng(1).standard_normal((3, SIZE), np.float32)}
    session = open_session(network(), execution, threads=1)
    gc.collect()  # a graph refers to itself
    assert not list(tmp_path.rglob("*.weight"))
    wanted = open_session(model_bytes(network()), execution, threads=1).run(feeds)["y"]
    assert np.array_equal(session.run(feeds)["y"], wanted)


def test_no_room_for_the_file_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutputError, match="TMPDIR to a folder with 19 MB to spare"):
        open_session(network())
