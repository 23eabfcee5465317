"""Tensors that only ONNX Runtime's form rounds get scales per channel, or stay float, if that is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.trtbuild.search.depthwise_network import Images
from trtbuild.artifact import Artifact
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.data import Sample
from trtbuild.model.constants import array
from trtbuild.options.effort import Effort
from trtbuild.plan import OutputSteps, PortableChoice
from trtbuild.quantization import insert_qdq, portable_form, portable_outputs, watched_tensors
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.portable.choose import choose_portable

CALIBRATION, UNSEEN = Images(0), Images(1)

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
swish (float[N, 3, 10, 10] image) => (float[N, 6] logits) {
  before = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
  gate = HardSigmoid (before)
  behind = Mul (before, gate)
  last = Conv (behind, w1)
  mean = GlobalAveragePool (last)
  logits = Flatten (mean)
}
"""


def network(text: str = TEXT) -> ir.Model:
    """One channel is so far below zero that hard-swish makes it zero; it widens the range."""
    rng = np.random.default_rng(3)
    constants = {
        "w0": rng.normal(0, (2 / 27) ** 0.5, (8, 3, 3, 3)),
        "b0": np.array([-200.0, 0.3, 0, -0.2, 0.1, 0, 0.5, -0.4]),
        "w1": rng.normal(0, 0.5, (6, 8, 1, 1)),
    }
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(content.astype(np.float32), name)
        for name, content in constants.items()
        if name in text
    )
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


@pytest.fixture(scope="module")
def quantized() -> Artifact:
    return quantized_network(network())


def quantized_network(model: ir.Model, source: Images = CALIBRATION) -> Artifact:
    plain = Artifact("swish", model, model)
    tensors = watched_tensors(model)
    return insert_qdq(calibrate(plain, source, tensors, CalibrateOptions(method="minmax")))


class Louder(Images):
    """Images of which every other one is louder; by their keys, these are the check images."""

    def __init__(self, seed: int, factor: float) -> None:
        super().__init__(seed)
        self.factor = factor

    def __iter__(self):
        for number, one in enumerate(super().__iter__()):
            factor = np.float32(1 if number % 2 else self.factor)
            feeds = {"image": factor * one.load()["image"]}
            yield Sample(one.name, bytes([number % 2, number]), lambda feeds=feeds: dict(feeds))


def outputs(
    model: ir.Model, execution: Execution = Execution.REFERENCE, source: Images = UNSEEN
) -> np.ndarray:
    """The outputs for unseen images."""
    session = open_session(model, execution)
    return np.stack([session.run(one.load())["logits"] for one in source]).astype(np.float64)


def sqnr_db(
    artifact: Artifact,
    execution: Execution = Execution.REFERENCE,
    source: Images = UNSEEN,
) -> float:
    wanted = outputs(artifact.source, source=source)
    noise = outputs(portable_form(artifact), execution, source) - wanted
    return float(10 * np.log10(((wanted - wanted.mean()) ** 2).sum() / (noise**2).sum()))


def test_only_what_float_operators_read_of_a_convolution_can_be_chosen_for(quantized) -> None:
    assert portable_outputs(quantized) == {"before", "last"}


def test_a_scale_a_channel_is_chosen_where_one_for_all_spoils_the_engine(quantized) -> None:
    chosen = choose_portable(quantized, Images(0), Effort.NORMAL)
    # one scale for all has the steps of a range forty times as wide: it loses 5 bits, 6 dB each
    assert sqnr_db(chosen) > sqnr_db(quantized) + 12
    # integer kernels sum in another order: some values differ by a step
    assert sqnr_db(chosen, Execution.FAST) > sqnr_db(quantized, Execution.FAST) + 12
    record = chosen.history[-1]
    assert record.stage == "portable form"
    assert min(record.details["errors"], key=record.details["errors"].get) == record.summary


@pytest.mark.parametrize(("factor", "room"), [(1.2, "1.25"), (1.4, "1.5"), (1.7, "2")])
def test_scales_of_channels_leave_room_for_what_the_others_have_not_shown(
    monkeypatch, factor: float, room: str
) -> None:
    images = Louder(0, factor)
    plain = quantized_network(network(), images)
    chosen = choose_portable(plain, images, Effort.NORMAL)
    assert f"room of {room}," in chosen.history[-1].summary
    monkeypatch.setattr("trtbuild.search.portable.choose._ROOMS", (1.0,))
    tight = choose_portable(plain, images, Effort.NORMAL)
    others = Louder(1, factor)
    assert sqnr_db(chosen, source=others) > sqnr_db(tight, source=others)


def test_what_a_convolution_gives_may_be_an_output_of_the_network() -> None:
    head, _ = TEXT.split("(float[N, 6] logits)")
    text = (
        head
        + """(float[N, 8, 10, 10] logits) {
      logits = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
    }"""
    )
    plain = quantized_network(network(text))
    assert choose_portable(plain, Images(0), Effort.NORMAL).history[-1].stage == "portable form"


def test_the_float_network_is_what_scales_of_channels_leave(quantized) -> None:
    scales = np.linspace(0.5, 2, 8).astype(np.float32) / 1024
    steps = {"before": OutputSteps(scales, 128)}
    form = portable_form(replace(quantized, portable=PortableChoice(steps=steps)))
    (layer,) = (node for node in form.graph if node.name == "Conv_0")
    plain = portable_form(quantized)
    (unchanged,) = (node for node in plain.graph if node.name == "Conv_0")

    def integers(node: ir.Node) -> np.ndarray:
        return array(node.inputs[1].producer().inputs[0])

    np.testing.assert_array_equal(integers(layer), integers(unchanged))


def test_a_convolution_in_float_keeps_its_weights(quantized) -> None:
    choice = PortableChoice(in_float=frozenset({"before"}))
    form = portable_form(replace(quantized, portable=choice))
    (layer,) = (node for node in form.graph if node.name == "Conv_0")
    np.testing.assert_array_equal(
        array(layer.inputs[1]), array(network().graph.node("Conv_0").inputs[1])
    )


def test_names_that_are_not_there_change_nothing(quantized) -> None:
    steps = {"absent": OutputSteps(np.ones(3, np.float32), 0)}
    choice = PortableChoice(steps=steps, in_float=frozenset({"logits"}))
    form = portable_form(replace(quantized, portable=choice))
    np.testing.assert_array_equal(outputs(form), outputs(portable_form(quantized)))


def test_half_of_the_convolutions_at_most_are_tried_in_float(quantized, monkeypatch) -> None:
    monkeypatch.setattr("trtbuild.search.portable.choose._NEAR", 0.0)  # nothing is near enough
    details = choose_portable(quantized, Images(0), Effort.NORMAL).history[-1].details
    tried = [what.rpartition(", ")[2] for what in details["errors"] if "in float" in what]
    # none, a quarter and a half of two convolutions; equal choices share one name
    assert sorted(set(tried)) == ["0 in float", "1 in float"]
    assert len(details["in_float"]) <= 1


def test_nothing_is_chosen_where_float_lacks_what_is_measured(quantized) -> None:
    other = replace(quantized, source=network(TEXT.replace("logits", "scores")))
    assert choose_portable(other, Images(0), Effort.NORMAL) is other
