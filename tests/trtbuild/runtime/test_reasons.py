"""What ONNX Runtime finds wrong with a network or its inputs is said without the place in its source."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

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
