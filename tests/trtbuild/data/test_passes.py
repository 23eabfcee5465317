"""The number of passes over the data: with a callable, each pass runs the user's whole input pipeline."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

from tests.trtbuild.calibration.small_files import write_network
from trtbuild.cli.main import run
from trtbuild.data import arrays, choose_samples, open_source, stored
from trtbuild.data.callables import open_object
from trtbuild.data.samples import array_key
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
    """The number of passes of a command over the data."""
    (folder / "passes").unlink(missing_ok=True)
    sys.modules.pop("pipeline", None)
    code = run([*arguments, "--data", "pipeline:samples", "-q"])
    return code, int((folder / "passes").read_text())


CHOOSES = ("engine", "net.onnx", "--int8", "--backend", "onnxruntime", "-o", "out")
BUILD = (*CHOOSES, "--calibrator", "entropy")


LIMITS = ((), ("--min-sqnr", "1"), ("--min-sqnr", "90"))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("command", [BUILD, CHOOSES])
def test_a_build_goes_through_data_that_fits_into_memory_twice(pipeline, command, limit):
    _, number = passes(pipeline, *command, "--no-latency", *limit)
    assert number == 2


def test_latency_takes_no_pass_of_its_own(pipeline):
    assert passes(pipeline, *BUILD) == (0, 2)


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr("trtbuild.data.replay.MOST_HELD_BYTES", 10_000)  # of 50,000


def test_a_build_by_one_rule_indexes_calibrates_and_verifies(pipeline, little_memory):
    assert passes(pipeline, *BUILD, "--no-latency") == (0, 3)


def test_choosing_ranges_and_moves_goes_through_the_data_twice_more(pipeline, little_memory):
    assert passes(pipeline, *CHOOSES, "--no-latency") == (0, 5)


def test_a_build_with_a_limit_goes_through_the_data_once_more(pipeline, little_memory):
    assert passes(pipeline, *BUILD, "--no-latency", "--min-sqnr", "1") == (0, 4)


def test_a_search_only_adds_a_pass_for_each_calibration(pipeline, little_memory):
    code, number = passes(pipeline, *BUILD, "--no-latency", "--min-sqnr", "90")
    assert code == 1
    assert number <= 6


def numbered(function):
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 1))
    return open_object(function, [spec], None)


def values(samples):
    return [float(sample.load()["x"][0, 0]) for sample in samples]


def test_a_pass_reads_on_where_the_one_before_it_ended():
    read = []

    def items():
        for number in range(6):
            read.append(number)
            yield {"x": np.full((1, 1), number, np.float32)}

    source = numbered(items)
    assert len(source.index) == 6
    read.clear()
    assert values(itertools.islice(source, 2)) == [0, 1]
    assert values(itertools.islice(source, 4)) == [0, 1, 2, 3]
    assert values(source) == values(source) == [0, 1, 2, 3, 4, 5]
    assert read == [0, 1, 2, 3, 4, 5]


def test_two_passes_at_once_see_all_samples():
    source = numbered(lambda: [{"x": np.full((1, 1), n, np.float32)} for n in range(4)])
    assert len(source.index) == 4
    assert values(one for pair in zip(source, source) for one in pair) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_is_read_behind_a_failure_is_read_anew():
    fails = iter((False, True, False, False))

    def items():
        last = next(fails)
        yield {"x": np.zeros((1, 1), np.float32)}
        if last:
            raise OSError("the share is away")
        yield {"x": np.ones((1, 1), np.float32)}

    source = numbered(items)
    assert len(source.index) == 2
    with pytest.raises(DataError, match="the share is away"):
        list(source)
    assert values(source) == [0, 1]


def test_calibrate_indexes_and_calibrates(pipeline):
    assert passes(pipeline, "calibrate", "net.onnx", "-o", "ranges.json") == (0, 2)
    ordered = ("--calibrator", "entropy-tensorrt")
    assert passes(pipeline, "calibrate", "net.onnx", "-o", "ranges.json", *ordered) == (0, 2)


def test_verify_needs_no_index_unless_it_chooses(pipeline):
    assert passes(pipeline, *BUILD, "--no-latency")[0] == 0
    verify = ("verify", "net.onnx", "out/net.int8.onnx")
    assert passes(pipeline, *verify) == (0, 2)  # the first batch shows the task
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
    with pytest.raises(
        DataError, match="gave other data than in the previous pass: of 3 samples, 3 did"
    ):
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


@pytest.mark.parametrize(("mapped_from", "passes_digested"), [(10**9, 1), (0, 2)])
def test_samples_in_memory_are_digested_once_and_those_of_a_mapped_file_in_each_pass(
    tmp_path, monkeypatch, mapped_from, passes_digested
):
    monkeypatch.setattr(stored, "_MAPPED_FROM", mapped_from)
    digested = []

    def counted(values):
        digested.append(1)
        return array_key(values)

    monkeypatch.setattr(arrays, "array_key", counted)
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 3))
    source = open_source(str(tmp_path / "x.npy"), [spec], None)
    first, second = ([(one.name, one.key) for one in source] for _ in range(2))
    assert first == second
    assert len(set(first)) == 4
    assert len(digested) == 4 * passes_digested
