"""Bias correction removes the mean error of quantizing, channel by channel."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from tests.trtbuild.search.depthwise_network import Images, artifact, images
from tests.trtbuild.verification.small_network import run
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.model.edits import tapped
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.search.bias_correction import corrected, measured_shifts


def test_the_mean_of_every_channel_is_restored() -> None:
    plain = artifact(imbalance=0.5)
    tensors = watched_tensors(plain.model)
    ready = calibrate(plain, Images(0), tensors, CalibrateOptions(method="minmax"))
    quantized = insert_qdq(ready).quantized
    feeds = [{"image": images(0)}]
    found = measured_shifts(ready.model, quantized, feeds)
    shifts = {name: one.mean for name, one in found.items()}
    assert set(shifts) == {"s0", "d1", "p2", "d3", "p4", "logits"}

    # the first layer inherits no error: its shift is the difference of the two networks
    y, q = (run(tapped(m, ["s0"]), images(0))["s0"] for m in (ready.model, quantized))
    expected = (q.astype(np.float64) - y).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(shifts["s0"], expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-4

    changed = corrected(ready.model, shifts)
    for name, shift in shifts.items():
        y, b = (run(tapped(m, [name]), images(0))[name] for m in (ready.model, changed))
        if name == "s0":  # later layers see the changed outputs of earlier ones
            difference = (y.astype(np.float64) - b).mean(axis=(0, 2, 3))
            np.testing.assert_allclose(difference, shift, atol=1e-6)


def test_a_matmul_is_corrected_in_the_add_behind_it() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> n (float[N, 5, 4] image) => (float[N, 5, 3] out)'
        "{ m = MatMul (image, w) out = Add (b, m) }"
    )
    for name, shape in (("w", (4, 3)), ("b", (3,))):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in model.graph:
        node.name = node.outputs[0].name
    changed = corrected(model, {"m": np.arange(3.0)})
    data = np.zeros((2, 5, 4), np.float32)
    np.testing.assert_array_equal(run(changed, data)["out"][0, 0], 1.0 - np.arange(3.0))
    np.testing.assert_array_equal(run(model, data)["out"], 1.0)


def test_a_layer_without_a_bias_gets_one() -> None:
    model = artifact().model
    changed = corrected(model, {"p2": np.arange(12.0)})
    y, b = (run(tapped(m, ["p2"]), images(0))["p2"] for m in (model, changed))
    np.testing.assert_allclose((y - b).mean(axis=(0, 2, 3)), np.arange(12.0), atol=1e-4)
    assert len(next(node for node in model.graph if node.name == "p2").inputs) == 2
