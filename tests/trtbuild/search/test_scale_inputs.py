"""Choices of ranges that are run together give each image the outputs that each choice gives it alone."""

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

# What is quantized has a row for each image.
ROWS = "m = MatMul(x, w) r = Relu(m) y = MatMul(r, w)"
# What the second product reads has two rows for each image.
HALVES = "h = Reshape(x, halves) r = Sigmoid(h) m = MatMul(r, v) y = Reshape(m, whole)"
FEEDS = [{"x": row[None]} for row in np.random.default_rng(0).normal(size=(5, 8)).astype("f")]
FACTORS = (1.0, 0.7, 0.4)


class Rows(Source):
    """The images."""

    @property
    def description(self) -> str:
        return "rows"

    def __iter__(self):
        for number, feeds in enumerate(FEEDS):
            yield Sample(str(number), array_key(feeds.values()), lambda feeds=feeds: dict(feeds))


def network(nodes: str) -> ir.Model:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 8] x) => (float[N, 8] y) {{ {nodes} }}'
    )
    random = np.random.default_rng(1)
    constants = {
        "w": random.normal(size=(8, 8)).astype(np.float32),
        "v": random.normal(size=(4, 4)).astype(np.float32),
        "halves": np.array([-1, 4]),
        "whole": np.array([-1, 8]),
    }
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def opened(nodes: str) -> tuple[OpenScales, list[dict[str, float]]]:
    """The network, and choices of ranges."""
    model = network(nodes)
    plain = Artifact("it", model, model)
    calibration = calibrate(plain, Rows(), watched_tensors(model)).calibration
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
