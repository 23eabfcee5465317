"""Functions with another opset than the network: each computes as its own opset defines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from trtbuild.errors import ModelError
from trtbuild.model import read_model, repairs_of
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
NETWORK = """
<ir_version: 9, opset_import: ["": {main}, "local": 1]>
network (float[3,4,6] x) => (float[p,q,r] y) {{
    a = Neg(x)
    b = local.F(a)
    {then}
}}
<domain: "local", opset_import: ["": {own}]>
F (x) => (y) {{ {body} }}
"""


def network(main: int, own: int, body: str, then: str = "y = Neg(b)") -> onnx.ModelProto:
    return onnx.parser.parse_model(NETWORK.format(main=main, own=own, body=body, then=then))


def outcome(proto: onnx.ModelProto, folder: Path) -> np.ndarray:
    onnx.save(proto, folder / "n.onnx")
    model = read_model(folder / "n.onnx")
    assert any("'F' of opset" in told for told in repairs_of(model))
    return open_session(model, Execution.FLOAT).run({"x": X})["y"]


@pytest.mark.parametrize(
    ("main", "own", "body"),
    [
        (18, 13, "m = ReduceMean <axes = [1], keepdims = 1> (x) y = Sub(x, m)"),
        (13, 18, "i = Constant <value = int64[1] {1}> () m = ReduceMean(x, i) y = Sub(x, m)"),
        (17, 10, "y = Clip <min = -0.5, max = 1.0> (x)"),
        (18, 11, "p, q = Split <axis = 1, split = [1, 3]> (x) y = Concat <axis = 1> (q, p)"),
        (
            13,
            17,
            "s = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]> () y = LayerNormalization(x, s)",
        ),
        (21, 7, "y = Relu(x)"),
    ],
)
def test_a_function_of_another_opset(main: int, own: int, body: str, tmp_path: Path) -> None:
    proto = network(main, own, body)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": X})
    np.testing.assert_allclose(outcome(proto, tmp_path), expected, rtol=1e-5, atol=1e-5)


def test_softmax_goes_over_all_axes_from_its_own_on_as_in_its_opset(tmp_path: Path) -> None:
    powers = np.exp(-X.astype(np.float64))
    expected = -powers / powers.sum(axis=(1, 2), keepdims=True)
    found = outcome(network(17, 11, "y = Softmax <axis = 1> (x)"), tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_beside_an_operator_that_the_network_is_too_old_for(tmp_path: Path) -> None:
    then = "s = Constant <value_floats = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]> () y = LayerNormalization(b, s)"
    hidden = np.maximum(-X.astype(np.float64), 0)
    apart = hidden - hidden.mean(-1, keepdims=True)
    expected = apart / np.sqrt(hidden.var(-1, keepdims=True) + 1e-5)
    found = outcome(network(15, 15, "y = Relu(x)", then), tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_resize_keeps_the_coordinates_of_its_time(tmp_path: Path) -> None:
    body = 's = Constant <value_floats = [1.0, 1.0, 2.0]> () y = Resize <mode = "linear"> (x, s)'
    found = outcome(network(17, 10, body), tmp_path)
    neighbour = np.concatenate([X[..., 1:], X[..., -1:]], axis=-1)
    expected = np.stack([X, (X + neighbour) / 2], axis=-1).reshape(3, 4, 12)  # at 0, 1/2, 1, ...
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_converted_is_told(tmp_path: Path) -> None:
    scan = "Scan <num_scan_inputs = 1, body = g (float[6] i) => (float[6] o) {o = Neg(i)}>"
    onnx.save(network(17, 8, f'y = {scan} ("", x)'), tmp_path / "n.onnx")
    text = r"opset 17, and its function 'F' is for opset 8; one opset for both failed: Scan '.*' has a batch"
    with pytest.raises(ModelError, match=text):
        read_model(tmp_path / "n.onnx")
