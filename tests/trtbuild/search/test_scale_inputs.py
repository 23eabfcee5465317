"""Choices of ranges run in one batch give each image the same outputs as each choice alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.artifact import Artifact
from trtbuild.calibration import calibrate
from trtbuild.data import Sample, Source
from trtbuild.data.samples import array_key
from trtbuild.quantization import place_by_ranges, watched_tensors
from trtbuild.runtime.onnxruntime import OnnxRuntimeSession
from trtbuild.search import together
from trtbuild.search.ranges.scale_inputs import OpenScales

# The quantized tensors have one row per image.
ROWS = "m = MatMul(x, w) r = Relu(m) y = MatMul(r, w)"
# The second product's input has two rows per image.
HALVES = "h = Reshape(x, halves) r = Sigmoid(h) m = MatMul(r, v) y = Reshape(m, whole)"
# All quantized tensors have one row per image, and the rows affect each other.
MIXED = {
    "a running sum": "m = MatMul(x, w) s = CumSum(m, zero) y = MatMul(s, w)",
    "a mean": "m = MatMul(x, w) a = ReduceMean<axes = [0]>(m) d = Div(m, a) y = MatMul(d, w)",
    "a product of images": "m = MatMul(x, w) t = Transpose(m) p = MatMul(m, t) y = MatMul(p, m)",
    "scores over the batch": "m = MatMul(x, w) p = Softmax<axis = 0>(m) y = MatMul(p, w)",
    "a share of the batch": "m = MatMul(x, w) d = Shape(m) n = Gather(d, zero) f = Cast<to = 1>(n)"
    " q = Div(m, f) y = MatMul(q, w)",
    "steps of a recurrent layer": "m = MatMul(x, w) s = Unsqueeze(m, one)"
    " h = GRU<hidden_size = 4>(s, gates, state) f = Reshape(h, rows) y = MatMul(f, back)",
}
FEEDS = [{"x": row[None]} for row in np.random.default_rng(0).normal(size=(5, 8)).astype("f")]
FACTORS = (1.0, 0.7, 0.4)


class Rows(Source):
    """The images, with as many axes as the network's input."""

    def __init__(self, num_axes: int) -> None:
        self.num_axes = num_axes

    def shaped(self, feeds):
        return {"x": feeds["x"].reshape(*(1,) * (self.num_axes - 1), -1)}

    @property
    def description(self) -> str:
        return "rows"

    def __iter__(self):
        for number, feeds in enumerate(FEEDS):
            yield Sample(
                str(number), array_key(feeds.values()), lambda feeds=feeds: self.shaped(feeds)
            )


def network(nodes: str, kind: str = "float[N, 8]") -> ir.Model:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind} x) => ({kind} y) {{ {nodes} }}'
    )
    random = np.random.default_rng(1)
    constants = {
        "w": random.normal(size=(8, 8)).astype(np.float32),
        "v": random.normal(size=(4, 4)).astype(np.float32),
        "halves": np.array([-1, 4]),
        "whole": np.array([-1, 8]),
        "zero": np.array(0),
        "one": np.array([1]),
        "rows": np.array([0, 4]),
        "gates": random.normal(size=(1, 12, 8)).astype(np.float32),
        "state": random.normal(size=(1, 12, 4)).astype(np.float32),
        "back": random.normal(size=(4, 8)).astype(np.float32),
    }
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def opened(nodes: str, kind: str = "float[N, 8]") -> tuple[OpenScales, list[dict[str, float]]]:
    """The network, and choices of ranges."""
    model = network(nodes, kind)
    plain = Artifact("it", model, model)
    calibration = calibrate(
        plain, Rows(len(model.graph.inputs[0].shape or ())), watched_tensors(model)
    ).calibration
    assert calibration is not None
    placement, _ = place_by_ranges(model, calibration)
    choices = [
        {name: factor * amax for name, amax in calibration.amaxes.items()} for factor in FACTORS
    ]
    return OpenScales(model, placement, calibration, ["y"]), choices


@pytest.mark.parametrize(("nodes", "runs"), [(ROWS, 1), (HALVES, len(FACTORS))])
def test_choices_that_are_run_together_change_no_output(nodes, runs, monkeypatch) -> None:
    session, choices = opened(nodes)
    alone = session.outputs(FEEDS, choices)
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    session, _ = opened(nodes)
    counted, run = [], OnnxRuntimeSession.run

    def one_run(self, feeds):
        counted.append(feeds)
        return run(self, feeds)

    monkeypatch.setattr(OnnxRuntimeSession, "run", one_run)
    found = session.outputs(FEEDS, choices)
    assert len(counted) == runs
    assert (session.choices_at_a_time(FEEDS) > 1) == (runs == 1)
    for mine, others in zip(found, alone, strict=True):
        for one, other in zip(mine, others, strict=True):
            # a product of one row is summed in another order than one of several
            np.testing.assert_allclose(one["y"], other["y"], rtol=1e-5, atol=1e-5)
    narrow, wide = found[2], found[0]
    assert not np.allclose(narrow[0]["y"], wide[0]["y"], rtol=1e-2)


def test_images_of_several_sizes_are_run_one_by_one(monkeypatch) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    session, choices = opened(ROWS)
    pair = {"x": np.concatenate([FEEDS[0]["x"], FEEDS[1]["x"]])}
    assert session.choices_at_a_time([pair, FEEDS[2]]) == 1
    for (both, third), choice in zip(session.outputs([pair, FEEDS[2]], choices), choices):
        rows = session.outputs(FEEDS[:2], [choice])[0]
        expected = np.concatenate([one["y"] for one in rows])
        np.testing.assert_allclose(both["y"], expected, rtol=1e-5, atol=1e-5)
        assert third["y"].shape == (1, 8)


@pytest.mark.parametrize("nodes", MIXED.values(), ids=MIXED)
def test_choices_do_not_meet_in_a_network_that_mixes_its_batch(nodes, monkeypatch) -> None:
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    session, choices = opened(nodes)
    assert session.choices_at_a_time(FEEDS) == 1
    found = session.outputs(FEEDS, choices)
    for mine, choice in zip(found, choices, strict=True):
        for one, other in zip(mine, session.outputs(FEEDS, [choice])[0], strict=True):
            np.testing.assert_array_equal(one["y"], other["y"])


def test_an_axis_of_the_same_name_is_not_taken_for_the_batch(monkeypatch) -> None:
    """Exporters name axes by their sizes in one example; images are run one by one then."""
    monkeypatch.setattr(together, "MAPPED_LIMIT", 0)
    nodes = "m = MatMul(x, w) t = Transpose<perm = [1, 0, 2]>(m) y = MatMul(t, w)"
    session, choices = opened(nodes, "float[N, N, 8]")
    images = [{"x": feeds["x"][:, None]} for feeds in FEEDS]
    found = session.outputs(images, choices)
    narrow, wide = found[2], found[0]
    assert narrow[0]["y"].shape == (1, 1, 8)
    assert not np.allclose(narrow[0]["y"], wide[0]["y"], rtol=1e-2)
