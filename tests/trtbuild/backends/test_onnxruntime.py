"""Large weights lie beside the network that ONNX Runtime opens: in memory, or in a file with them."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from trtbuild.errors import OutputError
from trtbuild.model import model_bytes
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 2200  # 19 MB of weights


def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)


def network(weight: ir.TensorProtocol | None = None) -> ir.Model:
    weight = weight or ir.Tensor(weights(), name="w")
    x = ir.val("x", ir.DataType.FLOAT, ["N", SIZE])
    w = ir.Value(name="w", const_value=weight)
    node = ir.node("MatMul", [x, w], name="multiply")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
    graph = ir.Graph(
        [x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 17}, name="g"
    )
    return ir.Model(graph, ir_version=8)


def mapped(path: Path) -> ir.ExternalTensor:
    """A weight in a file, at an offset not aligned to floats."""
    path.write_bytes(b"." + weights().tobytes())
    place = (path.name, 1, 4 * SIZE * SIZE)
    return ir.ExternalTensor(
        *place, ir.DataType.FLOAT, shape=ir.Shape([SIZE, SIZE]), name="w", base_dir=path.parent
    )


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("execution", list(Execution))
def test_weights_beside_the_network_give_what_those_in_it_give(
    execution, is_mapped, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    feeds = {"x": np.random.default_rng(1).standard_normal((3, SIZE), np.float32)}
    model = network(mapped(tmp_path / "w.bin") if is_mapped else None)
    session = open_session(model, execution, threads=1)
    assert bool(list(tmp_path.rglob("*.weight"))) == is_mapped
    del model
    gc.collect()  # a graph refers to itself
    assert not list(tmp_path.rglob("*.weight"))
    wanted = open_session(model_bytes(network()), execution, threads=1).run(feeds)["y"]
    assert np.array_equal(session.run(feeds)["y"], wanted)


def test_no_room_is_said_where_a_weight_needs_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    open_session(network()).close()
    with pytest.raises(OutputError, match="TMPDIR to a folder with 19 MB to spare"):
        open_session(network(mapped(tmp_path / "w.bin")))


def test_weights_in_memory_stay_as_long_as_anything_runs_with_them() -> None:
    content = weights()
    lies_there = weakref.ref(content)
    session = open_session(network(ir.Tensor(content, name="w")), Execution.REFERENCE, threads=1)
    y = np.empty((1, SIZE), np.float32)
    run = session.bind({"x": np.ones((1, SIZE), np.float32)}, {"y": y})
    del content
    session.close()
    gc.collect()  # a graph refers to itself
    assert lies_there() is not None
    run()
    np.testing.assert_allclose(y[0], weights().sum(0, dtype=np.float64), atol=0.01)
    del run, session
    gc.collect()
    assert lies_there() is None
