"""Sensitivity and bisecting on TensorRT: every candidate is built as an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.cli.main import run
from trtbuild.model import write_model

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World


def sensitivity(world: World, backend: str, batch: Any) -> dict[str, Any]:
    """Run ``verify --sensitivity``; return the cost of each group alone."""
    write_model(networks.network(batch), Path("net.onnx"))
    np.savez("data.npz", images=np.concatenate([f["images"] for f in networks.batches(24)]))
    build = ["engine", "net.onnx", "--int8", "--data", "data.npz", "--no-latency", "-q"]
    assert run([*build, "--backend", "onnxruntime"]) == 0
    options = [
        "--diagnose-images",
        "4",
        "--batch-size",
        "4",
        "--diagnose-on",
        backend,
        "-o",
        "found.json",
    ]
    both = ["net.onnx", "out/net.int8.onnx", "--data", "data.npz"]
    code = run(["verify", *both, "--sensitivity", *options, "-q"])
    groups = json.loads(Path("found.json").read_text())["sensitivity"]
    return {"code": code, "alone": {group["group"]: group["alone_sqnr_db"] for group in groups}}


@pytest.fixture(scope="module", params=[1, "N"])
def measured_here(
    tensorrt11: Server, request: pytest.FixtureRequest
) -> tuple[Any, dict[str, float]]:
    """A batch, and each group's cost measured in ONNX Runtime, without building engines."""
    here = tensorrt11.run(sensitivity, backend="onnxruntime", batch=request.param)
    assert here.error is None, here.error["trace"]
    assert not here.called("Builder.build_serialized_network_to_stream")
    return request.param, here.value["alone"]


def test_groups_cost_the_same_on_an_engine_that_computes_the_same(
    tensorrt: Server, measured_here: tuple[Any, dict[str, float]]
) -> None:
    batch, here = measured_here
    there = tensorrt.run(sensitivity, backend="tensorrt", batch=batch)
    assert there.error is None, there.error["trace"]
    assert there.value["code"] == 0, there.stderr
    # each of the groups alone in INT8 and alone in float, and all in INT8
    num_groups = len(here)
    assert len(there.called("Builder.build_serialized_network_to_stream")) == 2 * num_groups + 1
    # The stand-in runs a plan's network in ONNX Runtime: both round the same values, and differ only where
    # the order of float sums puts a value on the other side of a rounding boundary.
    assert there.value["alone"] == pytest.approx(here, abs=1.0)
