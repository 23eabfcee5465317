"""The trained networks: smaller afterwards, and the same answers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trtbuild.passes import optimize
from trtbuild.runtime.onnxruntime import Execution, open_session

NETWORKS = {
    # file: (input shape, remaining nodes of the kinds that the passes fold)
    "cifar10/resnet20_bn.onnx": (2, 3, 32, 32),
    "imagenet/squeezenet11.onnx": (1, 3, 224, 224),
    "onnx/mnist_cntk.onnx": (1, 1, 28, 28),
    "onnx/ultraface_rfb320.onnx": (1, 3, 240, 320),
    "onnx/yolox_nano.onnx": (1, 3, 416, 416),
    "onnx/ppocr_cls.onnx": (2, 3, 48, 192),
}


def read_as_weights(path):
    """Read a network as the pipeline does: weights that are also inputs count as weights."""
    model = ir.load(path)
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, 4)
    return model


def run(model, feeds):
    outputs = open_session(model, Execution.REFERENCE, threads=1).run(feeds)
    return list(outputs.values())


@pytest.mark.parametrize("file", NETWORKS)
def test_nothing_foldable_is_left_and_answers_agree(shared, file):
    model = read_as_weights(shared / "data" / file)
    result = optimize(model)
    gone = {"BatchNormalization", "Identity", "Dropout", "Constant"}
    assert not gone & set(result.after.nodes)
    assert result.after.node_count <= result.before.node_count
    assert not result.log.rolled_back
    image = np.random.default_rng(7).uniform(0, 1, NETWORKS[file]).astype(np.float32)
    feeds = {model.graph.inputs[0].name: image}
    for wanted, got in zip(run(model, feeds), run(result.model, feeds)):
        # one more rounding of each weight, summed over at most a few thousand products per output
        assert np.max(np.abs(wanted - got)) <= 1e-5 * max(1.0, np.max(np.abs(wanted)))


@pytest.mark.parametrize("file", NETWORKS)
def test_interface_is_kept_and_a_second_run_finds_nothing(shared, file):
    model = read_as_weights(shared / "data" / file)
    result = optimize(model)

    def interface(given):
        ends = (*given.graph.inputs, *given.graph.outputs)
        return [(value.name, str(value.type), str(value.shape)) for value in ends]

    assert interface(result.model) == interface(model)
    again = optimize(result.model)
    assert not again.log.fired
    assert again.after == result.after
