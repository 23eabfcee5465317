"""Plans are opened and run through the real bindings; the bytes that come out are compared."""

from __future__ import annotations

import ctypes
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from tests.manifests import manifest
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.artifact import Artifact
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.runtime.tensorrt import OpenedEngine, OpenOptions, TensorRTSession

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.world import World

DYNAMIC = ["images=1x3x8x8:4x3x8x8:8x3x8x8"]


def _error(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None, "the scenario ended well"
    return answer.error


def _plan(batch: Any = 1, **settings: Any) -> Path:
    """A float plan of the small network."""
    return (
        TensorRTBackend()
        .build(networks.request(networks.float_artifact(batch), None, **settings))
        .path
    )


def _difference(session: TensorRTSession, size: int, seed: int) -> float:
    feeds = networks.batches(1, size, seed)[0]
    wanted = networks.reference(networks.float_artifact("N")).run(feeds)["scores"]
    return float(np.abs(session.run(feeds)["scores"] - wanted).max())


def runs_many_shapes(world: World, sizes: list[int], **options: Any) -> list[float]:
    path = _plan("N", shapes=DYNAMIC)
    session = TensorRTBackend(TensorRTOptions(**options)).open(path)
    differences = [_difference(session, size, seed) for seed, size in enumerate(sizes)]
    session.close()
    session.close()
    return differences


SIZES = [1, 8, 3, 3, 3, 8, 1, 1]


@pytest.mark.parametrize("graph", [False, True])
def test_shapes_may_change_from_run_to_run(tensorrt: Server, graph: bool) -> None:
    answer = tensorrt.run(runs_many_shapes, sizes=SIZES, cuda_graph=graph)
    assert answer.error is None, answer.error["trace"]
    assert max(answer.value) < 1e-5
    # With a graph: an ordinary run, then a captured one; changed shapes start anew. Runs 4, 5 and 8 replay.
    enqueued = len(answer.called("IExecutionContext.execute_async_v3"))
    assert enqueued == (len(SIZES) - 1 if graph else len(SIZES))


def test_a_shape_that_no_profile_covers(tensorrt: Server) -> None:
    message = _error(tensorrt.run(runs_many_shapes, sizes=[9]))["message"]
    assert "not built for the input shapes {'images': (9, 3, 8, 8)}" in message
    assert "profile 0: 'images' (1, 3, 8, 8) to (8, 3, 8, 8)" in message


def leaves_nothing(world: World) -> dict[str, int]:
    runs_many_shapes(world, SIZES, cuda_graph=True)
    library = ctypes.CDLL("libcuda.so.1")
    names = ("live_streams", "live_events", "live_graphs", "contexts_retained", "context_depth")
    left = {name: getattr(library, f"standin_{name}")() for name in names}
    return left | {"device": library.standin_live(1), "host": library.standin_live(0)}


def test_a_closed_session_has_given_everything_back(tensorrt: Server) -> None:
    assert set(tensorrt.value(leaves_nothing).values()) == {0}


def runs_two_contexts(world: World) -> list[float]:
    """Two sessions of one engine, taking turns with different shapes."""
    engine = OpenedEngine(_plan("N", shapes=DYNAMIC), OpenOptions())
    sessions = [TensorRTSession(engine, owns_engine=False) for _ in range(2)]
    differences = [_difference(sessions[i % 2], 2 + i % 2, i) for i in range(6)]
    for session in sessions:
        session.close()
    engine.close()
    return differences


def test_several_contexts_of_one_engine(tensorrt: Server) -> None:
    answer = tensorrt.run(runs_two_contexts)
    assert answer.error is None, answer.error["trace"]
    assert max(answer.value) < 1e-5
    assert len(answer.called("ICudaEngine.create_execution_context")) == 2


def finds_nonzero(world: World, fails: bool = False, **options: Any) -> list[list[list[int]]]:
    """A network whose output shape depends on the data."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[4, 5] x) => (int64[2, N] places) { places = NonZero(x) }"""
    model: ir.Model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph[0].name = "find"
    built = TensorRTBackend().build(networks.request(Artifact("find", model, model)))
    session = TensorRTBackend(TensorRTOptions(**options)).open(built.path)
    found = []
    rng = np.random.default_rng(5)
    for share in (0.2, 0.9, 0.0, 0.5):
        if fails:
            ctypes.CDLL("libcuda.so.1").standin_fail(b"cuMemAlloc", 2)
        x = (rng.random((4, 5)) < share).astype(np.float32)
        places = session.run({"x": x})["places"]
        assert places.tolist() == np.array(np.nonzero(x)).tolist()
        found.append(places.tolist())
    session.close()
    return found


def test_outputs_whose_shape_the_data_decides(tensorrt: Server) -> None:
    answer = tensorrt.run(finds_nonzero)
    assert answer.error is None, answer.error["trace"]
    assert len(answer.value[2][0]) == 0  # an empty output is valid


def test_no_memory_for_such_an_output(tensorrt: Server) -> None:
    message = _error(tensorrt.run(finds_nonzero, fails=True))["message"]
    assert "out of memory" in message


def test_such_an_output_rules_out_a_graph(tensorrt: Server) -> None:
    answer = tensorrt.run(repeats_nonzero)
    assert "no CUDA graph is possible" in _error(answer)["message"]
    assert "'places'" in _error(answer)["message"]


def repeats_nonzero(world: World) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] x) => (int64[1, N] places) { places = NonZero(x) }"""
    model: ir.Model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph[0].name = "find"
    built = TensorRTBackend().build(networks.request(Artifact("find", model, model)))
    session = TensorRTBackend(TensorRTOptions(cuda_graph=True)).open(built.path)
    for _ in range(2):
        session.run({"x": np.ones(4, np.float32)})


def measures(world: World) -> list[float]:
    session = TensorRTBackend().open(_plan())
    elapsed = session.latencies_ms(networks.batches(1)[0], runs=7, warmup=2)
    session.close()
    return [float(value) for value in elapsed]


def test_latencies_by_events(tensorrt: Server) -> None:
    answer = tensorrt.run(measures)
    assert len(answer.value) == 7
    assert all(value >= 0 for value in answer.value)
    assert len(answer.called("IExecutionContext.execute_async_v3")) == 9


def gives_bad_feeds(world: World, bad: str) -> None:
    session = TensorRTBackend().open(_plan())
    x = np.zeros((1, 3, 8, 8), np.float32)
    session.run({"missing": {}, "rank": {"images": x[0]}, "dtype": {"images": x.astype(np.int32)},
                 "half": {"images": x.astype(np.float16)}}[bad])  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("missing", "the input 'images' is missing"),
        ("rank", "has the shape (3, 8, 8)"),
        ("dtype", "is int32; the engine wants float32"),
    ],
)
def test_bad_feeds(tensorrt: Server, bad: str, text: str) -> None:
    assert text in _error(tensorrt.run(gives_bad_feeds, bad=bad))["message"]


def test_other_floats_are_converted(tensorrt: Server) -> None:
    assert tensorrt.run(gives_bad_feeds, bad="half").error is None


def opens_elsewhere(world: World, change: str) -> None:
    path = _plan(version_compatible=change == "host code")
    details = {"machine": {"tensorrt": "10.3.0", "gpu": "NVIDIA A10", "compute_capability": "8.6",
                           "driver": "13.0"}}  # fmt: skip
    record = manifest({"file": path.name, "details": details})
    path.with_suffix(".manifest.json").write_text(json.dumps(record))
    if change == "gpu":
        world.device = "Another GPU"
    elif change == "version":
        world.number += 1
    elif change == "damage":
        path.write_bytes(b"x" + path.read_bytes())
    elif change == "absent":
        path.unlink()
    TensorRTBackend().open(path)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (
            "gpu",
            [
                "incompatible device",
                "built for TensorRT 10.3.0",
                "GPU NVIDIA A10 (here Stand-in GPU 0)",
            ],
        ),
        (
            "version",
            ["not compatible with this version of TensorRT", "trtbuild engine MODEL.onnx --int8"],
        ),
        ("damage", ["Magic tag does not match", "not a plan, or is damaged"]),
        ("absent", ["cannot be read: No such file or directory"]),
        ("host code", ["host executable code", "--allow-host-code"]),
    ],
)
def test_a_plan_that_does_not_open_explains_itself(
    tensorrt: Server, change: str, texts: list[str]
) -> None:
    error = _error(tensorrt.run(opens_elsewhere, change=change))
    assert error["exit_code"] == 2
    for text in texts:
        assert text in error["message"]


def allows_host_code(world: World) -> float:
    path = _plan(version_compatible=True)
    session = TensorRTBackend(TensorRTOptions(allow_host_code=True)).open(path)
    return _difference(session, 1, 0)


def test_host_code_runs_when_it_is_allowed(tensorrt: Server) -> None:
    answer = tensorrt.run(allows_host_code)
    assert answer.value < 1e-5
    # Version compatible plans need InstanceNormalization without a plugin: parser flag 0.
    assert answer.called("OnnxParser.set_flag") == [[0]]


def streams_weights(world: World, budget: int | None, fails: bool = False) -> int:
    path = _plan(weight_streaming=True, quantization="explicit")
    if fails:
        world.failing["ICudaEngine.set_weight_streaming_budget_v2"] = 0
    session = TensorRTBackend(TensorRTOptions(weight_budget=budget)).open(path)
    _difference(session, 1, 0)
    return int(session._engine.native.weight_streaming_budget_v2)


def test_weight_streaming_budget(tensorrt: Server) -> None:
    answer = tensorrt.run(streams_weights, budget=1024)
    assert answer.value == 1024
    calls = [call[0] for call in answer.calls]
    budget = calls.index("ICudaEngine.set_weight_streaming_budget_v2")
    assert budget < calls.index("ICudaEngine.create_execution_context")
    refused = tensorrt.run(streams_weights, budget=1024, fails=True)
    assert "refuses 1024 bytes" in _error(refused)["message"]


def strips(world: World, forgets: bool = False, fails: str = "") -> dict[str, Any]:
    path = _plan(strip_plan=True)
    files = sorted(file.name for file in Path().iterdir())
    if forgets:
        Path("net.weights.onnx").unlink()
    if fails:
        world.failing[fails] = 0
    return {"files": files, "difference": _difference(TensorRTBackend().open(path), 1, 0)}


def test_a_stripped_plan_is_refitted_when_it_is_opened(tensorrt: Server) -> None:
    answer = tensorrt.run(strips)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["files"] == ["net.plan", "net.weights.onnx"]
    assert answer.value["difference"] < 1e-5
    identical = 20 if tensorrt.major == 10 else 19  # REFIT_IDENTICAL
    assert [identical] in answer.called("IBuilderConfig.set_flag")
    calls = [call[0] for call in answer.calls]
    refitted = calls.index("Refitter.refit_cuda_engine")
    assert refitted < calls.index("ICudaEngine.create_execution_context")


def test_a_stripped_plan_without_its_weights(tensorrt: Server) -> None:
    message = _error(tensorrt.run(strips, forgets=True))["message"]
    assert "the weights of a stripped plan are missing" in message
    for member in ("OnnxParserRefitter.refit_from_file", "Refitter.refit_cuda_engine"):
        message = _error(tensorrt.run(strips, fails=member))["message"]
        assert "does not take the weights of 'net.weights.onnx'" in message


def uses_after_close(world: World) -> None:
    session = TensorRTBackend().open(_plan())
    session.close()
    session.run(networks.batches(1)[0])


def test_a_closed_session_says_so(tensorrt: Server) -> None:
    assert "has been closed" in _error(tensorrt.run(uses_after_close))["message"]


def opens_without_a_driver(world: World) -> None:
    path = _plan()
    world.calls.clear()
    ctypes.CDLL("libcuda.so.1").standin_set_devices(0)
    TensorRTBackend().open(path)


def test_without_a_gpu_no_runtime_is_made(tensorrt: Server) -> None:
    """The real runtime would be an object whose first use may crash the process."""
    answer = tensorrt.run(opens_without_a_driver)
    assert "no GPU can be used" in _error(answer)["message"]
    assert answer.called("create.Runtime") == []


def looks_at_specs(world: World) -> list[Any]:
    session = TensorRTBackend().open(_plan("N", shapes=DYNAMIC))
    return [
        [(s.name, s.dtype.name, s.dims) for s in session.inputs],
        [(s.name, s.dtype.name, s.dims) for s in session.outputs],
        dataclasses.asdict(TensorRTBackend().availability()),
    ]


def test_inputs_outputs_and_availability(tensorrt: Server) -> None:
    inputs, outputs, availability = tensorrt.value(looks_at_specs)
    assert inputs == [["images", "float32", [None, 3, 8, 8]]]
    assert outputs == [["scores", "float32", [None, 16]]]
    version = {10: "10.16.1.11", 11: "11.4.0.106"}[tensorrt.major]
    assert availability == {
        "usable": True,
        "detail": f"TensorRT {version} on Stand-in GPU 0",
        "remedy": "",
    }


def profiles(world: World) -> list[dict[str, float]]:
    session = TensorRTBackend().open(_plan("N", shapes=DYNAMIC))
    feeds = [networks.batches(1, size, 0)[0] for size in (2, 3)]
    for one in feeds:
        session.run_profiled(one, 2)
    runs = session.layer_runs_ms()
    difference = _difference(session, 2, 1)
    session.close()
    return [*runs, {"difference": difference}]


def test_the_profiler_is_told_of_each_layer_of_each_run(tensorrt: Server) -> None:
    *runs, last = tensorrt.value(profiles)
    assert len(runs) == 4
    for run in runs:
        assert list(run.values()) == [1.0 + place for place in range(len(run))]
        assert next(iter(run)).startswith("Reformatting CopyNode")
    assert last["difference"] < 1e-5
