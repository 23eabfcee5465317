"""Networks that divide by zero, never end or need too much memory end only their own process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtbuild.cli.main import run
from trtbuild.errors import ExecutionError, OutOfTimeError
from trtbuild.runtime.child import start_module
from trtbuild.runtime.isolated import IsolatedProcess, started_ahead

pytestmark = pytest.mark.skipif(os.name == "nt", reason="limits are POSIX")


def info(name, dims, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def network(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


MUL = helper.make_node("Mul", ["x", "w"], ["y"])
DOUBLE = network([MUL], [info("x", ["n"]), info("w", [1])], [info("y", ["n"])])
INTEGERS = [info("step", [], TensorProto.INT64), info("length", [], TensorProto.INT64)]
STFT = network(
    [helper.make_node("STFT", ["signal", "step", "", "length"], ["y"])],
    [info("signal", [1, 128, 1]), *INTEGERS],
    [info("y", [1, 15, 9, 2])],
)


def endless():
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("v", [])],
        [info("on", [], TensorProto.BOOL), info("w", [])],
    )
    node = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    true = numpy_helper.from_array(np.array(True), "true")
    return network([node], [info("x", [])], [info("y", [])], [true])


def feeds(step, length):
    return {
        "signal": np.ones((1, 128, 1), np.float32),
        "step": np.array(step),
        "length": np.array(length),
    }


def test_runs_as_within_this_process_and_keeps_weights():
    weight = ir.tensor(np.array([2], np.float32), name="w")
    with IsolatedProcess() as isolated:
        session = isolated.open(DOUBLE, {"w": weight})
        assert [spec.name for spec in session.inputs] == ["x", "w"]
        for values in ([1.0], [1.0, -3.0]):
            found = session.run({"x": np.array(values, np.float32)})
            np.testing.assert_array_equal(found["y"], 2 * np.array(values, np.float32))


def test_a_weight_in_a_file_is_mapped_there(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(8) + np.array([3], np.float32).tobytes())
    weight = ir.ExternalTensor(
        "weights", 8, 4, ir.DataType.FLOAT, shape=ir.Shape([1]), name="w", base_dir=tmp_path
    )
    with IsolatedProcess() as isolated:
        found = isolated.open(DOUBLE, {"w": weight}).run({"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(found["y"], [3, 3])


def test_a_native_fault_is_an_error_and_the_next_run_goes_on():
    with IsolatedProcess() as isolated:
        session = isolated.open(STFT, {})
        with pytest.raises(ExecutionError, match=r"SIG|exit code"):
            session.run(feeds(8, 0))
        assert session.run(feeds(8, 16))["y"].shape == (1, 15, 9, 2)


def test_a_network_that_never_ends_is_given_up():
    with IsolatedProcess(processor_seconds=1) as isolated:
        session = isolated.open(endless(), {})
        with pytest.raises(OutOfTimeError, match="processor time"):
            session.run({"x": np.array(1, np.float32)})


def test_one_that_neither_computes_nor_ends_is_given_up():
    with IsolatedProcess(seconds=0.01) as isolated, pytest.raises(OutOfTimeError, match="too long"):
        isolated.open(endless(), {})  # starting a process takes longer


def test_a_network_that_wants_more_memory_than_there_is():
    shape = info("dims", [1], TensorProto.INT64)
    content = network(
        [helper.make_node("ConstantOfShape", ["dims"], ["y"])], [shape], [info("y", ["n"])]
    )
    with IsolatedProcess() as isolated:
        session = isolated.open(content, {})
        with pytest.raises(ExecutionError):
            session.run({"dims": np.array([1 << 42])})
        assert session.run({"dims": np.array([2])})["y"].shape == (2,)


def test_what_onnxruntime_refuses_is_said():
    with IsolatedProcess() as isolated:
        with pytest.raises(ExecutionError, match="cannot"):
            isolated.open(b"no network", {})
        session = isolated.open(DOUBLE, {})
        with pytest.raises(ExecutionError):
            session.run({"x": np.ones(2, np.float64)})


def test_closed_is_closed():
    with IsolatedProcess() as isolated:
        session = isolated.open(DOUBLE, {})
    isolated.close()
    with pytest.raises(ExecutionError, match="ended"):
        session.run({})


def test_a_network_finds_the_weights_of_the_one_before_and_its_own():
    first, second = (ir.tensor(np.array([value], np.float32), name="w") for value in (2, 5))
    with IsolatedProcess() as isolated:
        for weight, factor in ((first, 2), (first, 2), (second, 5), (first, 2)):
            session = isolated.open(DOUBLE, {"w": weight})
            found = session.run({"x": np.ones(1, np.float32)})
            np.testing.assert_array_equal(found["y"], [factor])


def children():
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("is_wanted", [False, True])
def test_a_process_that_was_started_ahead_serves_one_and_ends(is_wanted):
    before = children()
    with started_ahead(Path("small.onnx")):
        ahead = children() - before
        assert len(ahead) == 1
        with IsolatedProcess() as isolated:
            if is_wanted:
                session = isolated.open(DOUBLE, {"w": ir.tensor([2.0])})
                assert session.run({"x": np.ones(1, np.float32)})["y"] == 2
            assert children() - before == ahead
    assert not children() - before


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_none_is_started_ahead_for_a_large_file(tmp_path):
    before = children()
    path = tmp_path / "large.onnx"
    path.touch()
    os.truncate(path, 10**8)
    with started_ahead(path):
        assert not children() - before


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_process_that_died_before_it_was_wanted_is_not_blamed_on_a_network():
    before = children()
    with started_ahead(Path("small.onnx")):
        (ahead,) = children() - before
        os.kill(int(ahead), signal.SIGKILL)
        os.waitid(os.P_PID, int(ahead), os.WEXITED | os.WNOWAIT)
        with IsolatedProcess() as isolated:
            session = isolated.open(DOUBLE, {"w": ir.tensor([3.0])})
            assert session.run({"x": np.ones(1, np.float32)})["y"] == 3
    assert not children() - before


NET = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'
)


@pytest.mark.parametrize(
    ("words", "are_compared"),
    [
        (("optimize", "net.onnx", "out.onnx"), True),
        (("optimize", "net.onnx", "out.onnx", "--no-check"), False),
        (("calibrate", "net.onnx", "--data", "data.npz", "-o", "c.json"), True),
        (("calibrate", "net.onnx", "--data", "data.npz", "-o", "c.json", "--all-tensors"), False),
    ],
)
def test_commands_that_compare_nothing_start_no_process_for_it(
    words, are_compared, tmp_path, monkeypatch
):
    started = []

    def start(*given, **options):
        started.append(given)
        return start_module(*given, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "trtbuild.runtime.isolated.started_ahead", started_ahead
    )  # as users have it
    monkeypatch.setattr("trtbuild.runtime.isolated.start_module", start)
    onnx.save(onnx.parser.parse_model(NET), "net.onnx")
    np.savez("data.npz", x=np.ones((2, 4), np.float32))
    assert run([*words, "-q"]) == 0
    assert bool(started) is are_compared
