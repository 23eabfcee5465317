"""Images of a network with many weights are run in one batch, with the same outputs as alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trtbuild.model.inference import infer_model
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search import together
from trtbuild.search.together import outputs_of

MANY = [{"x": np.full((1, 3), float(i), np.float32)} for i in range(5)]


def network(lead: str | int = "N", *, flat: bool = False) -> ir.Model:
    """Twice the input, with `flat` as one row for all images."""
    ends = "float[1, M]" if flat else f"float[{lead}, 3]"
    rest = "y = Reshape(d, s)" if flat else "y = Identity(d)"
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{lead}, 3] x) => ({ends} y)
        <int64[2] s = {{1, -1}}, float[1] two = {{2.0}}> {{ d = Mul(x, two) {rest} }}"""
    return ir.from_onnx_text(text)


@pytest.mark.parametrize(
    ("model", "limit", "runs"),
    [
        (network(), 0, 1),
        (network(), 10**9, 5),  # too few weights
        (network(1), 0, 5),  # the batch is fixed
        (network(flat=True), 0, 5),  # one row for all images
    ],
)
def test_each_image_gets_its_own_outputs(model, limit, runs, monkeypatch) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", limit)
    session, counted = open_session(model), []

    def run(feeds):
        counted.append(feeds)
        return session.run(feeds)

    found = outputs_of(model, run, MANY, ["y"])
    assert len(counted) == runs
    for feeds, outputs in zip(MANY, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], 2 * feeds["x"])


def test_images_of_other_shapes_are_run_alone(monkeypatch) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    model = network()
    pair = [*MANY[:2], {"x": np.ones((2, 3), np.float32)}]
    found = outputs_of(model, open_session(model).run, pair, ["y"])
    assert [len(outputs["y"]) for outputs in found] == [1, 1, 2]


def test_samples_along_another_axis_are_run_alone(monkeypatch) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[time, batch, 3] x) => (float[time, batch, 3] y)
        <int64 first = {0}> { y = CumSum(x, first) }"""
    )
    steps = [{"x": np.ones((1, 1, 3), np.float32)}] * 2
    found = outputs_of(model, open_session(model).run, steps, ["y"])
    for outputs in found:  # in one batch, the second sample would be the next step of the first
        np.testing.assert_array_equal(outputs["y"], 1.0)


@pytest.mark.parametrize(
    "nodes",
    [
        "m = ReduceMean<axes = [0]>(x) y = Div(x, m)",
        "k = Shape(x) n = Gather(k, zero) f = Cast<to = 1>(n) y = Div(x, f)",
        "t = Transpose(x) y = MatMul(x, t)",
        "y = Transpose(x)",
    ],
    ids=["a mean", "a share", "pairs", "columns"],
)
def test_images_that_affect_each_other_are_run_alone(nodes, monkeypatch) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    end = {"t": "N, N", "y": "3, N"}.get(nodes[0], "N, 3")
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[{end}] y)
        <int64 zero = {{0}}> {{ {nodes} }}"""
    )
    infer_model(model)
    images = [{"x": np.full((1, 3), float(i), np.float32)} for i in range(1, 4)]
    session = open_session(model)
    for feeds, outputs in zip(images, outputs_of(model, session.run, images, ["y"]), strict=True):
        np.testing.assert_array_equal(outputs["y"], session.run(feeds)["y"])
