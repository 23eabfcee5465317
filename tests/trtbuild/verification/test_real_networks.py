"""Blame on a real network: two layers of ResNet20, planted, found, and nothing else."""

from __future__ import annotations

import pytest

from tests.trtbuild.verification.small_network import spoil_weight_scale
from trtbuild.calibration import CalibrateOptions, calibrate
from trtbuild.data import Preprocess, batches, choose_samples, open_source
from trtbuild.data.labels import read_labels
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import input_specs
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.bisect import find_culprits
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.groups import find_groups, with_float
from trtbuild.verification.gate import Gate, judge

PREPROCESS = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def resnet20(shared):
    artifact = prepare(load(shared / "data/cifar10/resnet20.onnx"))
    data = str(shared / "data/cifar10/calib_exact_1024.npz")
    source = open_source(data, input_specs(artifact.source), PREPROCESS)
    chosen = choose_samples(source, num_images=32, seed=0)
    options = CalibrateOptions(method="entropy")
    return calibrate(artifact, chosen, watched_tensors(artifact.model), options)


@pytest.mark.parametrize(
    "planted",
    [
        {"/layer1/layer1.1/conv2/Conv", "/layer3/layer3.2/conv2/Conv"},
        {"/layer2/layer2.0/conv2/Conv", "/layer1/layer1.0/conv2/Conv"},
    ],
)
def test_two_layers_with_scales_spoilt_by_a_hundred_are_found(shared, resnet20, planted) -> None:
    path = shared / "data/cifar10/test_exact_300.npz"
    source = open_source(str(path), input_specs(resnet20.source), PREPROCESS)
    chosen = choose_samples(read_labels(path, source), num_images=100, seed=0)
    quantized = insert_qdq(resnet20).quantized
    for name in planted:
        spoil_weight_scale(quantized, name, 100.0)
    evaluate = Evaluator(open_session(resnet20.source), batches(chosen, 50))

    def passes(floats: frozenset[str]) -> bool:
        network = with_float(quantized, resnet20.model, floats)
        return judge(evaluate(network), Gate(max_top1_drop=5.0)).passed

    found = find_culprits([group.name for group in find_groups(quantized)], passes)
    assert set(found.groups) == planted
    assert found.num_evaluations <= 25
