"""Errors of layers and their effects, against networks in which one layer alone is quantized."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from calibrators import Calibration, TensorRange
from tests.trtbuild.verification.small_network import (
    batches,
    images,
    quantized,
    run,
    spoil_weight_scale,
)
from tests.work import num_calls
from trtbuild.artifact import Artifact
from trtbuild.errors import DataError, ModelError
from trtbuild.model.edits import tapped
from trtbuild.model.qdq import activation_pairs
from trtbuild.quantization import insert_qdq, portable_form
from trtbuild.search.groups import find_groups, with_float
from trtbuild.verification.layers import layer_errors, weight_errors


def sqnr(signal: np.ndarray, noise: np.ndarray) -> float:
    power = float((noise.astype(np.float64) ** 2).sum())
    return (
        math.inf if not power else 10 * math.log10((signal.astype(np.float64) ** 2).sum() / power)
    )


def test_own_error_against_one_layer_quantized_alone() -> None:
    artifact = quantized()
    groups = {group.name for group in find_groups(artifact.quantized)}
    found = {
        one.node: one for one in layer_errors(artifact.model, artifact.quantized, batches()).layers
    }
    assert set(found) >= groups
    for name in ("Conv_s0", "Conv_a0", "Conv_right", "Conv_last", "Gemm_logits"):
        layer = found[name]
        alone = with_float(artifact.quantized, artifact.model, groups - {name})
        y, o = (
            run(tapped(model, [layer.tensor]), images())[layer.tensor]
            for model in (artifact.model, alone)
        )
        # sums of the same float32 values in float64; the order of the sums differs
        assert layer.own_sqnr_db == pytest.approx(sqnr(y, y - o), abs=1e-6)
    assert found["Conv_s0"].tensor == "r0"


@pytest.mark.parametrize("form", ["TensorRT's", "portable"])
def test_a_spoilt_weight_is_found_first_with_its_channel(form: str) -> None:
    artifact = quantized()
    model = artifact.quantized if form == "TensorRT's" else portable_form(artifact)
    node = next(node for node in model.graph if node.name == "Conv_left")
    scale = node.inputs[1].producer().inputs[1]
    numbers = scale.const_value.numpy().copy()
    numbers[4] *= 3
    scale.const_value = ir.tensor(numbers, name=scale.name)
    found = layer_errors(artifact.model, model, batches()).layers
    assert found[0].node == "Conv_left"
    assert found[0].weight.worst_channel == 4
    # the channel is three times too large: its error is twice its signal, -6.02 dB; rounding adds
    # less than 0.1 dB to it
    assert found[0].weight.worst_channel_sqnr_db == pytest.approx(-6.02, abs=0.1)
    # other layers have only their own error, not this layer's
    assert found[1].own_sqnr_db > found[0].own_sqnr_db + 10


def test_clipping_and_rounding_of_an_activation_against_numpy() -> None:
    artifact = quantized()
    pair = activation_pairs(artifact.quantized)["r0"]
    scale = pair.quantize.inputs[1]
    scale.const_value = ir.tensor(scale.const_value.numpy() / np.float32(2), name=scale.name)
    found = layer_errors(artifact.model, artifact.quantized, batches()).activations
    r0 = next(one for one in found if one.tensor == "r0")

    x = run(tapped(artifact.model, ["r0"]), images())["r0"].astype(np.float64)
    step = float(scale.const_value.numpy())
    levels = np.clip(np.rint(x / step), -128, 127)
    beyond = (x > 127 * step) | (x < -128 * step)
    noise = (x - levels * step) ** 2
    assert r0.clipped_percent == pytest.approx(100 * beyond.mean())
    assert r0.clipped_percent > 0
    assert r0.clipping_noise_percent == pytest.approx(
        100 * noise[beyond].sum() / noise.sum(), rel=1e-6
    )
    assert r0.sqnr_db == pytest.approx(10 * math.log10((x**2).sum() / noise.sum()), abs=1e-6)


def test_networks_with_no_layer_in_common() -> None:
    artifact = quantized()
    renamed = artifact.model.clone()
    for node in renamed.graph:
        node.name = f"other_{node.name}"
        for output in node.outputs:
            output.name = f"other_{output.name}"
    with pytest.raises(ModelError, match="no layer that reads Q/DQ"):
        layer_errors(renamed, artifact.quantized, batches())


def test_no_images() -> None:
    artifact = quantized()
    with pytest.raises(DataError, match="no sample"):
        layer_errors(artifact.model, artifact.quantized, [])


def test_spoiling_is_what_the_name_says() -> None:
    artifact = quantized()
    before = run(artifact.quantized, images())["logits"]
    spoil_weight_scale(artifact.quantized, "Conv_s0", 1.0)
    np.testing.assert_array_equal(run(artifact.quantized, images())["logits"], before)


def chain(length: int) -> tuple[ir.Model, ir.Model]:
    """A chain of convolutions: in float, and quantized with made-up ranges."""
    steps = " ".join(f"t{i + 1} = Conv (t{i}, t{i})" for i in range(length))
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        chain (float[1, 2, 3, 3] t0) => (float[1, 2, 3, 3] t{length}) {{ {steps} }}"""
    )
    for i in range(length):
        weight = ir.Value(
            name=f"w{i}", const_value=ir.tensor(np.full((2, 2, 1, 1), 0.5 + i, "f"), name=f"w{i}")
        )
        model.graph.node(i).replace_input_with(1, weight)
        model.graph.register_initializer(weight)
        model.graph.node(i).name = f"conv{i}"
    given = TensorRange(1.0, 1.0, -1.0, 1.0, "minmax", "", num_values=18, num_zeros=0)
    ranges = {f"t{i}": given for i in range(length + 1)}
    artifact = Artifact("chain", model, model, calibration=Calibration("minmax", ranges))
    return model, insert_qdq(artifact).quantized


def test_work_on_weights_grows_with_the_layers() -> None:
    small, large = chain(20), chain(80)
    assert len(weight_errors(*large)) == 80
    # work that grew with the square of the layers would be sixteen times as much
    assert num_calls(weight_errors, *large) < 5 * num_calls(weight_errors, *small)
