"""Every kind of network through the main job: legal for TensorRT, runnable, and near the float one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.command import trtbuild
from tests.models import NETWORKS
from tests.trtbuild.quantization.tensorrt_rules import int8_layers, violations

# Without clipping, a tensor's step is its largest magnitude / 127, some four standard deviations / 127, and
# the rounding noise is a step / sqrt(12): 41 dB. The noise of up to ten quantized tensors on a path adds up
# (-10 dB); new data exceed the range a little, and small random networks cancel a part of their signal
# (-10 dB). A wrong axis, scale or zero point leaves less than 10 dB.
LEAST_SQNR_DB = 20.0


@pytest.mark.parametrize("name", NETWORKS)
def test_network_becomes_int8(name, tmp_path, capsys):
    network = NETWORKS[name]
    model, data = network.save(tmp_path)
    done = trtbuild(
        *(capsys, "engine", model, "--int8", "--data", data, "-o", tmp_path / "out"),
        *("--no-latency", "--json", "--workers", 1, "--calibrator", "minmax"),
    )
    assert done.code == 0, done.err

    written = onnx.load(tmp_path / "out" / "net.int8.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert violations(written) == []
    assert len(int8_layers(written)) == network.int8

    feeds = network.feeds()
    wanted = run(without_node_names(network.proto), feeds)
    for file in ("net.int8.onnx", "net.onnxruntime.onnx"):
        found = run(onnx.load(tmp_path / "out" / file), feeds)
        assert list(found) == list(wanted)
        for output, values in wanted.items():
            assert found[output].dtype == values.dtype
            assert sqnr_db(values, found[output]) >= LEAST_SQNR_DB, (file, output)


def without_node_names(proto):
    """Remove node names: ONNX allows equal ones, ONNX Runtime refuses them."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    for node in proto.graph.node:
        node.name = ""
    return proto


def run(proto, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert {value.name for value in session.get_inputs()} == set(feeds)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def sqnr_db(wanted, found):
    assert found.shape == wanted.shape
    signal, noise = wanted.astype(np.float64), (found - wanted).astype(np.float64)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(np.sum(signal**2) / np.sum(noise**2))
