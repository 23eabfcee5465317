"""What ONNX Runtime finds wrong with a network or its inputs is said without the place in its source."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from trtbuild.data.running import naming
from trtbuild.errors import ExecutionError
from trtbuild.runtime.onnxruntime import open_session


def test_a_failed_check_is_told_by_its_sentence() -> None:
    dims = {"q": [2, 3, 8], "m": [3]}  # a mask needs two axes
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in dims.items()]
    node = helper.make_node("Attention", ["q", "q", "q", "m"], ["y"], q_num_heads=2, kv_num_heads=2)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", ends, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    session = open_session(model.SerializeToString())
    feeds = {name: np.zeros(shape, np.float32) for name, shape in dims.items()}
    with pytest.raises(ExecutionError) as caught:
        session.run(feeds)
    assert str(caught.value) == (
        "ONNX Runtime cannot run the network: attn_mask must be 2D or 3D or 4D tensor."
    )


def test_dims_that_do_not_fit_are_told_with_the_way_to_say_the_batch_axis() -> None:
    dims = {"x": [8, "N", 4], "h": [1, "N", 4]}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in dims.items()]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, "N", 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "h"], ["y"])], "g", ends, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model.SerializeToString())
    feeds = {"x": np.zeros((2, 3, 4), np.float32), "h": np.zeros((1, 3, 4), np.float32)}
    with pytest.raises(ExecutionError) as caught, naming(["one"], feeds):
        session.run(feeds)
    said = str(caught.value)
    assert "Got invalid dimensions for input: x" in said
    assert "index: 0 Got: 2 Expected: 8." in said
    assert "--batch-axis" in said
