"""Networks with states, scalars and lengths that vary: from the data to the engine and its figures."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtbuild import BenchRecipe, DataRecipe, EngineRecipe, OptionError, VerifyRecipe, build_engine
from trtbuild.jobs.bench import bench
from trtbuild.jobs.calibrate import calibrate_file
from trtbuild.jobs.verify import verify
from trtbuild.options.measure import MeasureOptions
from trtbuild.recipes import CalibrateRecipe, CalibrationFiles
from trtbuild.titles import ENGINE

FEATURES, HIDDEN = 24, 16
SHORT = MeasureOptions(duration_ms=5.0, warmup_ms=1.0)


def detector(path, batch):
    """A voice detector: a frame, the state of its LSTM (along axis 1) and the scalar sample rate."""
    rng = np.random.default_rng(5)

    def weight(name, *shape):
        values = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[-1]))
        return numpy_helper.from_array(values, name)

    initializers = [
        weight("w_in", FEATURES, HIDDEN),
        weight("w", 1, 4 * HIDDEN, HIDDEN),
        weight("r", 1, 4 * HIDDEN, HIDDEN),
        weight("w_out", HIDDEN, 1),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1, 1], np.int64), "halves"),
        numpy_helper.from_array(np.array(16000, np.int64), "rate"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        numpy_helper.from_array(np.array(1.0, np.float32), "one"),
    ]
    make = helper.make_node
    nodes = [
        make("Equal", ["sr", "rate"], ["is_wide"]),
        make("Where", ["is_wide", "one", "half"], ["factor"]),
        make("Mul", ["input", "factor"], ["scaled"]),
        make("MatMul", ["scaled", "w_in"], ["features"]),
        make("Relu", ["features"], ["active"]),
        make("Unsqueeze", ["active", "zero"], ["sequence"]),
        make("Split", ["state", "halves"], ["h", "c"], axis=0),
        make(
            "LSTM", ["sequence", "w", "r", "", "", "h", "c"], ["y", "hn", "cn"], hidden_size=HIDDEN
        ),
        make("Squeeze", ["hn", "zero"], ["last"]),
        make("MatMul", ["last", "w_out"], ["score"]),
        make("Sigmoid", ["score"], ["output"]),
        make("Concat", ["hn", "cn"], ["stateN"], axis=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            value("input", TensorProto.FLOAT, [batch, FEATURES]),
            value("state", TensorProto.FLOAT, [2, batch, HIDDEN]),
            value("sr", TensorProto.INT64, []),
        ],
        [
            value("output", TensorProto.FLOAT, [batch, 1]),
            value("stateN", TensorProto.FLOAT, [2, batch, HIDDEN]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "input": rng.standard_normal((count, FEATURES)).astype(np.float32),
        "state": rng.standard_normal((2, count, HIDDEN)).astype(np.float32) / 4,
        "sr": np.array(16000),
    }


@pytest.fixture
def readers(tmp_path, monkeypatch):
    (tmp_path / "readers.py").write_text(
        f"""
import numpy as np

def feeds(count=24):
    rng = np.random.default_rng(1)
    for number in range(count):
        yield {{
            "input": rng.standard_normal((1, {FEATURES})).astype(np.float32),
            "state": rng.standard_normal((2, 1, {HIDDEN})).astype(np.float32) / 4,
            "sr": np.array(16000 if number % 2 else 8000),
        }}

def texts(count=24):
    rng = np.random.default_rng(1)
    for number in range(count):
        length = 3 + number % 5
        yield {{
            "ids": rng.integers(0, 40, (1, length)),
            "mask": np.ones((1, length), np.int64),
        }}
"""
    )
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("readers", None)
    yield "readers"
    sys.modules.pop("readers", None)


def quality(result):
    return {o.name: o.sqnr_db.value for o in result.comparisons[ENGINE].outputs}


def test_complete_feeds_run_as_they_are(tmp_path, readers):
    model = detector(tmp_path / "vad.onnx", 1)
    data = DataRecipe(f"{readers}:feeds")
    result = build_engine(EngineRecipe(model, tmp_path / "out", data=data, latency=SHORT))
    assert min(quality(result).values()) > 15
    kinds = {d.op_type: d.int8 for d in result.artifact.decisions}
    assert kinds["MatMul"]
    assert not kinds.get("LSTM", False)
    checked = verify(VerifyRecipe(reference=model, engine=result.engine.path, data=data))
    assert checked.comparison.num_images == 24
    timed = bench(BenchRecipe(engine=result.engine.path, data=data, measure=SHORT))
    assert {one.batch_size for one in timed.samples} == {1}


@pytest.mark.parametrize("batch", ["batch", 4])
def test_a_state_runs_over_the_samples_along_another_axis(tmp_path, batch):
    model = detector(tmp_path / "vad.onnx", batch)
    np.savez(tmp_path / "d.npz", **frames(40))
    # a named dim shows the axis; a fixed one must be given by the user, for the output, too
    said = {} if batch == "batch" else {"state": 1, "stateN": 1}
    data = DataRecipe(str(tmp_path / "d.npz"), batch_axes=said)
    result = build_engine(
        EngineRecipe(model, tmp_path / "out", data=data, batch_size=4, latency=SHORT)
    )
    assert min(quality(result).values()) > 15
    found = verify(
        VerifyRecipe(reference=model, engine=result.engine.path, data=data, batch_size=4)
    )
    assert found.comparison.num_images == 40
    # the state is also judged sample by sample: as float64 computes it from single rows
    own = [output.num_images for output in found.comparison.outputs]
    assert own == [40, 40]
    expected = per_sample_sqnr(model, result.engine.path, frames(40), 4)
    by_name = {output.name: output for output in found.comparison.outputs}
    worst = min(image.sqnr_db for image in by_name["stateN"].worst)
    assert worst == pytest.approx(min(expected), abs=1e-3)
    timed = bench(
        BenchRecipe(engine=result.engine.path, data=data, measure=SHORT, batch_sizes=(4,))
    )
    assert {one.batch_size for one in timed.samples} == {4}


def per_sample_sqnr(model, engine, data, size):
    """The state's SQNR of each sample, dB, from both networks run on batches made here."""
    sessions = [ort.InferenceSession(str(path)) for path in (model, engine)]
    found = []
    for start in range(0, data["input"].shape[0], size):
        rows = slice(start, start + size)
        feeds = {
            "input": data["input"][rows],
            "state": data["state"][:, rows],
            "sr": data["sr"],
        }
        x, y = (s.run(["stateN"], feeds)[0].astype(np.float64) for s in sessions)
        signal, noise = (x**2).sum((0, 2)), ((x - y) ** 2).sum((0, 2))
        found += list(10 * np.log10(signal / noise))
    return found


def test_calibration_of_each_form_of_the_data_is_the_same(tmp_path):
    ranges = []
    for batch, said in (("batch", {}), (1, {"state": 1}), (4, {"state": 1})):
        folder = tmp_path / str(batch)
        folder.mkdir()
        model = detector(folder / "vad.onnx", batch)
        np.savez(folder / "d.npz", **frames(12))
        recipe = CalibrateRecipe(
            model=model,
            data=DataRecipe(str(folder / "d.npz"), batch_axes=said),
            files=CalibrationFiles(output=folder / "c.json"),
        )
        found = calibrate_file(recipe).calibration.ranges
        ranges.append({name: entry.amax for name, entry in found.items()})
    assert ranges[0] == ranges[1] == ranges[2]


def test_an_axis_that_is_not_there_is_refused(tmp_path):
    model = detector(tmp_path / "vad.onnx", 4)
    np.savez(tmp_path / "d.npz", **frames(12))
    for axes, match in (({"states": 1}, "names 'states'"), ({"state": 3}, "axis 3 of 'state'")):
        data = DataRecipe(str(tmp_path / "d.npz"), batch_axes=axes)
        with pytest.raises(OptionError, match=match):
            build_engine(EngineRecipe(model, tmp_path / "out", data=data))


def text_network(path):
    """Embeddings, a masked mean over the text, a class."""
    rng = np.random.default_rng(3)
    tables = {
        "table": rng.standard_normal((40, 16)),
        "w1": rng.standard_normal((16, 16)) / 4,
        "w2": rng.standard_normal((16, 5)) / 4,
    }
    make = helper.make_node
    nodes = [
        make("Gather", ["table", "ids"], ["words"]),
        make("MatMul", ["words", "w1"], ["inner"]),
        make("Relu", ["inner"], ["active"]),
        make("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["weights", "last"], ["column"]),
        make("Mul", ["active", "column"], ["kept"]),
        make("ReduceMean", ["kept"], ["mean"], axes=[1], keepdims=0),
        make("MatMul", ["mean", "w2"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "text",
        [value(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
        [value("scores", TensorProto.FLOAT, ["batch", 5])],
        [
            *(numpy_helper.from_array(v.astype(np.float32), name) for name, v in tables.items()),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_texts_of_any_length(tmp_path, readers):
    model = text_network(tmp_path / "text.onnx")
    data = DataRecipe(f"{readers}:texts")
    result = build_engine(EngineRecipe(model, tmp_path / "out", data=data, latency=SHORT))
    assert quality(result)["scores"] > 15
    checked = verify(VerifyRecipe(reference=model, engine=result.engine.path, data=data))
    assert checked.comparison.num_images == 24
    bench(BenchRecipe(engine=result.engine.path, data=data, measure=SHORT))
