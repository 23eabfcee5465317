"""Calibration that counts on the session's device: on a CPU, the same to the bit as counting in threads."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.models import NETWORKS
from tests.trtbuild.calibration.small_files import called, digits
from tests.trtbuild.calibration.test_observe import OVERFLOWS, samples_of
from trtbuild import load, prepare
from trtbuild.calibration import CalibrateOptions, collect
from trtbuild.calibration.histograms import collect_on_device
from trtbuild.calibration.network import observed_network
from trtbuild.data import Sample
from trtbuild.errors import DataError, OptionError
from trtbuild.progress import with_progress
from trtbuild.quantization import watched_tensors

pytest.importorskip("torch", reason="needs PyTorch")


@pytest.mark.parametrize("name", ["opset_13", "residual", "no_batch_axis", "dims_static_batch_4"])
def test_counts_are_those_of_the_threads(name, tmp_path):
    network = NETWORKS[name]
    model = prepare(load(network.save(tmp_path)[0])).model
    arrays, watched = network.arrays(12), observed_network(model, watched_tensors(model))
    seen = []
    samples = samples_of(model, arrays)
    given = with_progress(samples, "calibrate", 12, lambda *told: seen.append(told))
    found = collect_on_device(watched, given, "cpu")
    wanted = collect(watched, samples_of(model, arrays))
    assert dict(found.first.histograms) == dict(wanted.first.histograms)
    assert dict(found.second.histograms) == dict(wanted.second.histograms)
    assert found.data == wanted.data
    assert seen[-1] == ("calibrate", 12, 12)


def test_infinity_names_sample_and_tensor():
    model = ir.from_proto(onnx.parser.parse_model(OVERFLOWS))
    feeds = [{"x": np.full((1, 4), 10.0 if i == 3 else 1.0, np.float32)} for i in range(5)]
    samples = [Sample(f"image {i}", bytes([i]), lambda f=feed: f) for i, feed in enumerate(feeds)]
    with pytest.raises(DataError, match="'e' holds infinity for the sample 'image 3'"):
        collect_on_device(observed_network(model, ("x", "e", "y")), samples, "cpu")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="ONNX Runtime has CUDA here"
)
def test_without_the_provider_it_says_what_to_install(tmp_path, capsys):
    code, _, err = called(
        capsys, *digits(tmp_path, 8), "--calibrate-on", "cuda", "-o", tmp_path / "c"
    )
    assert code == 3
    assert "install onnxruntime-gpu" in err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("other", [{"workers": 2}, {"ray": True}, {"method": "entropy-tensorrt"}])
def test_cuda_excludes_workers_ray_and_tensorrts_rule(other):
    with pytest.raises(OptionError, match="--calibrate-on cuda"):
        CalibrateOptions(device="cuda", **other)
