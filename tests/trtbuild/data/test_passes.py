"""How often the data are gone through: of a callable, each pass runs the user's whole input pipeline."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.trtbuild.calibration.small_files import write_network
from trtbuild.cli.main import run
from trtbuild.data import choose_samples, open_source
from trtbuild.errors import DataError
from trtbuild.model.signature import TensorSpec

NETWORK = """
<ir_version: 9, opset_import: ["" : 18]>
net (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) { y = Conv(x, w) }
"""
PIPELINE = """
import pathlib
import numpy as np

def samples(num_passes=[0]):
    num_passes[0] += 1
    pathlib.Path("passes").write_text(str(num_passes[0]))
    random = np.random.default_rng(0)
    for _ in range(64):
        yield {"x": random.standard_normal((1, 3, 8, 8)).astype("f")}
    yield {"x": np.ones((2, 3, 8, 8), "f")}  # two that are equal
"""


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A network, and a callable that counts its passes in the file ``passes``."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    write_network(tmp_path / "net.onnx", NETWORK, w=weight)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("pipeline", None)
    yield tmp_path
    sys.modules.pop("pipeline", None)


def passes(folder, *arguments):
    """How often the data are gone through by a command."""
    (folder / "passes").unlink(missing_ok=True)
    sys.modules.pop("pipeline", None)
    code = run([*arguments, "--data", "pipeline:samples", "-q"])
    return code, int((folder / "passes").read_text())


CHOOSES = ("engine", "net.onnx", "--int8", "--backend", "onnxruntime", "-o", "out")
BUILD = (*CHOOSES, "--calibrator", "entropy")


def test_a_build_by_one_rule_indexes_calibrates_and_verifies(pipeline):
    assert passes(pipeline, *BUILD, "--no-latency") == (0, 3)


def test_choosing_ranges_goes_through_the_data_three_times_more(pipeline):
    assert passes(pipeline, *CHOOSES, "--no-latency") == (0, 6)


def test_latency_takes_no_pass_of_its_own(pipeline):
    code, number = passes(pipeline, *BUILD)
    assert (code, number) == (0, 3)


def test_a_build_with_a_limit_goes_through_the_data_once_more(pipeline):
    assert passes(pipeline, *BUILD, "--no-latency", "--min-sqnr", "1") == (0, 4)


def test_a_search_only_adds_a_pass_for_each_calibration(pipeline):
    code, number = passes(pipeline, *BUILD, "--no-latency", "--min-sqnr", "90")
    assert code == 1
    assert number <= 6


def test_calibrate_indexes_and_calibrates(pipeline):
    assert passes(pipeline, "calibrate", "net.onnx", "-o", "ranges.json") == (0, 2)
    ordered = ("--calibrator", "entropy-tensorrt")
    assert passes(pipeline, "calibrate", "net.onnx", "-o", "ranges.json", *ordered) == (0, 2)


def test_verify_needs_no_index_unless_it_chooses(pipeline):
    assert passes(pipeline, *BUILD, "--no-latency")[0] == 0
    verify = ("verify", "net.onnx", "out/net.int8.onnx")
    assert passes(pipeline, *verify) == (0, 2)  # the first batch tells the task
    assert passes(pipeline, *verify, "--num-images", "8") == (0, 2)


def test_other_data_in_another_pass_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "augmented.py").write_text(
        "import numpy as np\n"
        "random = np.random.default_rng(0)\n"
        "def samples():\n"
        "    yield {'x': random.standard_normal((5, 2)).astype('f')}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 2))
    chosen = choose_samples(open_source("augmented:samples", [spec], None), num_images=3, seed=0)
    with pytest.raises(DataError, match="gave other data than in the pass before: 3 of 3 samples"):
        list(chosen)


def test_another_order_in_another_pass_is_none(tmp_path, monkeypatch):
    (tmp_path / "shuffled.py").write_text(
        "import numpy as np\n"
        "random = np.random.default_rng(0)\n"
        "def samples():\n"
        "    yield {'x': random.permutation(np.arange(20, dtype='f').reshape(10, 2))}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 2))
    chosen = choose_samples(open_source("shuffled:samples", [spec], None), num_images=4, seed=0)
    assert {sample.key for sample in chosen} == {sample.key for sample in chosen}
