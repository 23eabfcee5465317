"""The weights of a very large network are used in place, in memory or in a file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trtbuild.model import outside_weights, write_model
from trtbuild.runtime.onnxruntime import Execution, open_session

WIDE = 1024


def network() -> ir.Model:
    x = ir.val("x", ir.DataType.FLOAT, ["n", WIDE])
    weight = np.random.default_rng(0).standard_normal((WIDE, WIDE), np.float32)
    tape = ir.tape.Tape()
    y = tape.op("MatMul", [x, tape.initializer(ir.tensor(weight), "w")])
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n", WIDE])
    graph = ir.Graph(
        [x], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 17}
    )
    return ir.Model(graph, ir_version=8)


def test_a_file_gives_what_its_network_gives_to_the_bit(tmp_path, monkeypatch) -> None:
    """Parts of a calibration in other processes must equal a single run."""
    monkeypatch.setattr(outside_weights, "MAPPED_LIMIT", 1)
    model = network()
    (path,) = write_model(model, tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((1, WIDE), np.float32)
    found = [open_session(one, Execution.FLOAT).run({"x": x})["y"] for one in (model, path)]
    np.testing.assert_array_equal(*found)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    exact = x.astype(np.float64) @ weight.numpy().astype(np.float64)
    # a sum of so many products in any order: Higham, Accuracy and Stability, (3.5)
    bound = WIDE * 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(weight.numpy()))
    assert (np.abs(found[0] - exact) <= 1.01 * bound).all()
