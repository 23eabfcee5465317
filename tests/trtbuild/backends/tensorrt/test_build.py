"""Builds through NVIDIA's real bindings, 10.16 and 11.4: the calls to the library, and the results."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibrators.cache import CalibrationCache
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.jobs.check import check_network
from trtbuild.model import write_model
from trtbuild.options.tensorrt import Quantization
from trtbuild.recipes import CheckRecipe
from trtbuild.report.check import check_report
from trtbuild.runtime.onnxruntime import open_session

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.world import World


def builds(world: World, batch: Any = 1, num_batches: int = 4, size: int = 1, method: str = "entropy",
           **settings: Any) -> dict[str, Any]:  # fmt: skip
    """Build the small network and run it; return the build's record and the distance from float."""
    artifact = networks.calibrated(batch, method)
    data = networks.batches(num_batches, size)
    backend = TensorRTBackend()
    built = backend.build(networks.request(artifact, data, **settings))
    feeds = networks.batches(1, size, seed=9)[0]
    session = backend.open(built.path)
    outputs = session.run(feeds)
    session.close()
    wanted = networks.reference(artifact).run(feeds)["scores"]
    quantized = open_session(artifact.quantized).run(feeds)["scores"]
    seen = [np.asarray(drawn["images"]) for drawn in world.batches]
    return {
        "files": sorted(path.name for path in Path().iterdir()),
        "described": dict(built.files),
        "details": dict(built.details),
        "error": float(np.abs(outputs["scores"] - wanted).max()),
        "error_to_quantized": float(np.abs(outputs["scores"] - quantized).max()),
        "batches_as_given": [x.tolist() for x in seen] == [d["images"].tolist() for d in data],
        "num_batches": len(seen),
    }


def test_implicit_int8_on_10(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds)
    assert answer.error is None, answer.error["trace"]
    built = answer.value
    assert built["files"] == ["net.cache", "net.plan"]
    # Real bytes: at the calibrator's addresses are the reader's batches.
    assert built["batches_as_given"]
    assert built["details"]["calibration"] == {
        "calibrator": "entropy2",
        "ranges_from": "device",
        "batches": 4,
        "samples_left_out": 0,
    }
    assert built["details"]["quantization"] == "implicit"
    assert "INT8" in built["details"]["flags"]
    # The stand-in runs the plan's network in float: right addresses and shapes give the float result.
    assert built["error"] < 1e-5


def test_order_of_calls_on_10(tensorrt10: Server) -> None:
    """Everything is set before the build starts, the flag before the calibrator."""
    members = [call[0] for call in tensorrt10.run(builds).calls]
    order = [
        "create.Builder",
        "Builder.create_network",
        "OnnxParser.parse_from_file",
        "IBuilderConfig.set_flag",
        "IBuilderConfig.set_int8_calibrator",
        "IBuilderConfig.set_progress_monitor",
        "Builder.build_serialized_network_to_stream",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.infer_shapes",
        "IExecutionContext.execute_async_v3",
    ]
    places = [members.index(name) for name in order]
    assert places == sorted(places)


def test_explicit_int8_on_11(tensorrt11: Server) -> None:
    answer = tensorrt11.run(builds)
    assert answer.error is None, answer.error["trace"]
    built = answer.value
    assert built["files"] == ["net.plan"]
    assert built["num_batches"] == 0
    assert built["details"]["quantization"] == "explicit"
    assert built["details"]["calibration"] == {}
    # The parsed network had Q/DQ: the stand-in returns ONNX Runtime's outputs of that network.
    assert built["error_to_quantized"] < 1e-6 < built["error"]
    assert answer.called("Builder.create_network") == [[0]]


def test_explicit_int8_on_10_is_strongly_typed(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds, quantization="explicit")
    assert answer.error is None, answer.error["trace"]
    assert answer.called("Builder.create_network") == [[1 << 1]]
    assert answer.called("IBuilderConfig.set_int8_calibrator") == []
    assert "INT8" not in answer.value["details"]["flags"]
    assert answer.value["error_to_quantized"] < 1e-6 < answer.value["error"]


def test_implicit_on_11_is_refused(tensorrt11: Server) -> None:
    error = _error(tensorrt11.run(builds, quantization="implicit"))
    assert error["exit_code"] == 2
    assert "TensorRT 11.4.0.106 has no implicit quantization" in error["message"]
    assert "trtbuild cache convert" in error["message"]


def test_ranges_of_the_host_reach_10_as_a_cache(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds, ranges="host")
    assert answer.error is None, answer.error["trace"]
    assert answer.value["num_batches"] == 0
    assert answer.value["details"]["calibration"]["ranges_from"] == "host"
    (offered,) = (call[0] for call in answer.called("calibrator.cache"))
    cache = CalibrationCache.from_bytes(offered.encode())
    ranges = networks.calibrated().calibration
    assert ranges is not None
    assert cache.header == "TRT-101601-EntropyCalibration2"
    for name in ranges.ranges:
        assert cache.scales[name] == ranges.scale(name)  # to the bit
    # The input of a Relu has the scale of its output, so that the fused kernel finds a scale for both.
    assert cache.scales["c1"] == ranges.scale("r1")


def test_a_method_that_tensorrt_lacks_is_handed_over(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds, method="mse")
    assert answer.value["details"]["calibration"]["ranges_from"] == "host"
    assert answer.value["num_batches"] == 0


def test_minmax_ranges_choose_the_minmax_calibrator(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds, method="minmax")
    assert answer.value["details"]["calibration"]["calibrator"] == "minmax"


@pytest.mark.parametrize("name", ["entropy2", "minmax", "entropy", "legacy"])
def test_every_calibrator_draws(tensorrt10: Server, name: str) -> None:
    answer = tensorrt10.run(builds, calibrator=name, ranges="device")
    assert answer.error is None, answer.error["trace"]
    assert answer.value["details"]["calibration"]["calibrator"] == name
    assert answer.value["num_batches"] == 4


def test_batches_are_cut_to_the_networks_batch(tensorrt10: Server) -> None:
    answer = tensorrt10.run(cuts)
    assert answer.error is None, answer.error["trace"]
    assert answer.value == {"equal": True, "batches": 3, "left_out": 1}


def cuts(world: World) -> dict[str, Any]:
    """The reader gives 5 + 4 + 4 rows, the network takes 4: three batches, and one row is left over."""
    artifact = networks.calibrated(4)
    parts = [networks.batches(1, size, seed=size * 7 + i)[0] for i, size in enumerate((5, 4, 4))]
    built = TensorRTBackend().build(networks.request(artifact, parts))
    rows = np.concatenate([part["images"] for part in parts])
    seen = np.concatenate([np.asarray(batch["images"], np.float32) for batch in world.batches])
    return {
        "equal": bool((seen == rows[: len(seen)]).all()),
        "batches": len(world.batches),
        "left_out": built.details["calibration"]["samples_left_out"],
    }


def test_dynamic_shapes_on_10(tensorrt10: Server) -> None:
    answer = tensorrt10.run(
        builds, batch="N", size=2, shapes=["images=1x3x8x8:4x3x8x8:8x3x8x8"], num_batches=3
    )
    assert answer.error is None, answer.error["trace"]
    shapes = [[1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]
    assert answer.value["details"]["profiles"] == [
        {"images": dict(zip(("min", "opt", "max"), shapes, strict=True))}
    ]
    # The calibration profile has the shape of the batches, so all of them are read.
    assert len(answer.called("IBuilderConfig.set_calibration_profile")) == 1
    assert answer.value["batches_as_given"]
    assert answer.value["error"] < 1e-5


def test_several_profiles(tensorrt: Server) -> None:
    shapes = ["images=1x3x8x8", "images=2x3x8x8:4x3x8x8:8x3x8x8"]
    answer = tensorrt.run(builds, batch="N", size=3, shapes=shapes, num_batches=2)
    assert answer.error is None, answer.error["trace"]
    assert [p["images"]["max"][0] for p in answer.value["details"]["profiles"]] == [1, 8]
    # Three rows fit only the second profile.
    assert [
        call[0] for call in answer.called("IExecutionContext.set_optimization_profile_async")
    ] == [1]


def test_flags_go_by_name(tensorrt10: Server, tensorrt11: Server) -> None:
    """The same options set different integers on 10 and 11, since enum members moved."""
    settings = {
        "quantization": "explicit",
        "sparse": True,
        "refit": "identical",
        "strict_nans": True,
    }
    masks = {}
    for server in (tensorrt10, tensorrt11):
        answer = server.run(builds, **settings)
        assert answer.error is None, answer.error["trace"]
        masks[server.major] = {call[0] for call in answer.called("IBuilderConfig.set_flag")}
        wanted = {"SPARSE_WEIGHTS", "REFIT_IDENTICAL", "STRICT_NANS"}
        assert wanted <= set(answer.value["details"]["flags"])
    assert masks == {10: {7, 20, 24}, 11: {7, 19, 23}}


def test_settings_reach_the_configuration(tensorrt: Server) -> None:
    answer = tensorrt.run(
        builds,
        quantization="explicit",
        workspace=1 << 28,
        optimization_level=5,
        max_tactics=8,
        avg_timing=4,
        aux_streams=0,
        tiling="moderate",
        l2_limit=1 << 20,
        tf32=False,
        hardware_compatibility="ampere_plus",
    )
    assert answer.error is None, answer.error["trace"]
    asked = {
        "set_memory_pool_limit": [[0, 1 << 28]],
        "set_builder_optimization_level": [[5]],
        "set_max_num_tactics": [[8]],
        "set_avg_timing_iterations": [[4]],
        "set_max_aux_streams": [[0]],
        "set_tiling_optimization_level": [[2]],
        "set_l2_limit_for_tiling": [[1 << 20]],
        "clear_flag": [[6]],
        "set_hardware_compatibility_level": [[1]],
        "set_profiling_verbosity": [[2]],
    }
    for member, calls in asked.items():
        assert answer.called(f"IBuilderConfig.{member}") == calls, member


@pytest.mark.parametrize(
    ("settings", "member", "text"),
    [
        ({"tiling": "full"}, "set_tiling_optimization_level", "refuses tiling_optimization_level"),
        ({"l2_limit": 5}, "set_l2_limit_for_tiling", "refuses l2_limit_for_tiling = 5"),
        ({"workspace": 5}, "set_memory_pool_limit", "5 bytes for the memory pool WORKSPACE"),
        (
            {"hardware_compatibility": "ampere_plus"},
            "set_hardware_compatibility_level",
            "TensorRT refuses hardware_compatibility_level",
        ),
        (
            {"runtime_platform": "windows_amd64"},
            "set_runtime_platform",
            "TensorRT refuses runtime_platform",
        ),
    ],
)
def test_a_setting_that_is_silently_refused_is_noticed(
    tensorrt: Server, settings: dict[str, Any], member: str, text: str
) -> None:
    answer = tensorrt.run(builds_with_failures, failing=[f"IBuilderConfig.{member}"], **settings)
    error = _error(answer)
    assert error["exit_code"] == 2
    assert text in error["message"]


@pytest.mark.parametrize(
    ("settings", "member"),
    [
        ({"runtime_platform": "windows_amd64"}, "set_runtime_platform"),
        ({"hardware_compatibility": "ampere_plus"}, "set_hardware_compatibility_level"),
        ({"sparse": True}, "set_flag"),
        ({"tf32": False}, "clear_flag"),
        ({}, "set_profiling_verbosity"),
    ],
)
def test_a_setting_that_is_refused_in_the_log_alone_is_refused(
    tensorrt: Server, settings: dict[str, Any], member: str
) -> None:
    """The real library logs an error, and keeps the old value or takes the new one nevertheless."""
    for keeps_old in (True, False):
        answer = tensorrt.run(builds_talking, member=member, keeps_old=keeps_old, **settings)
        error = _error(answer)
        assert error["exit_code"] == 2
        assert "TensorRT refuses" in error["message"]
        assert "unsupported here" in error["message"]


def builds_talking(
    world: World, member: str, keeps_old: bool = False, severity: str = "ERROR", **settings: Any
) -> Any:
    world.says[f"IBuilderConfig.{member}"] = (severity, f"{member}() is unsupported here")
    if keeps_old:
        world.failing[f"IBuilderConfig.{member}"] = 0
    return builds(world, quantization="explicit", **settings)


def test_a_setting_that_only_warns_is_built_and_recorded(tensorrt: Server) -> None:
    answer = tensorrt.run(builds_talking, member="set_flag", severity="WARNING", sparse=True)
    assert answer.error is None, answer.error["trace"]
    assert "set_flag() is unsupported here" in answer.value["details"]["warnings"]


class Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def builds_with_an_error_in_its_log(world: World) -> Any:
    told = Told()
    logging.getLogger("trtbuild").addHandler(told)
    world.on_step = lambda index: world.log("ERROR", f"step {index} went wrong")
    return {
        "details": builds(world, quantization="explicit")["details"],
        "told": told.texts,
    }


def test_errors_of_a_build_that_yields_a_plan_are_shown_and_recorded(tensorrt: Server) -> None:
    found = tensorrt.value(builds_with_an_error_in_its_log)
    assert found["details"]["errors"] == [f"step {index} went wrong" for index in range(3)]
    assert any("built a plan and said: step 0 went wrong" in text for text in found["told"])


def checked_with_an_error_in_its_log(world: World) -> Any:
    world.on_step = lambda index: world.log("ERROR", f"step {index} went wrong")
    path = Path("net.onnx")
    write_model(networks.network(), path)
    result = check_network(CheckRecipe(model=path, backend="tensorrt", build=True))
    (section,) = check_report(result).sections
    return {"taken": result.taken, "lines": [getattr(one, "text", "") for one in section.blocks]}


def test_errors_of_a_trial_that_yields_a_plan_are_shown(tensorrt: Server) -> None:
    found = tensorrt.value(checked_with_an_error_in_its_log)
    assert found["taken"]
    assert "the builder said: step 0 went wrong" in found["lines"]


def builds_with_failures(world: World, failing: list[str], answer: int = 0, **settings: Any) -> Any:
    world.failing |= dict.fromkeys(failing, answer)
    return builds(world, quantization="explicit", **settings)


def test_a_build_route_is_for_11(tensorrt10: Server, tensorrt11: Server) -> None:
    error = _error(tensorrt10.run(builds, build_route="x=1"))
    assert "TensorRT 10.16.1.11 has no build routes" in error["message"]
    answer = tensorrt11.run(builds, build_route="x=1")
    assert answer.called("IBuilderConfig.set_build_route") == [["x=1"]]
    refused = _error(
        tensorrt11.run(
            builds_with_failures, failing=["IBuilderConfig.set_build_route"], build_route="y"
        )
    )
    assert "TensorRT refuses build_route = y" in refused["message"]


def test_parser_errors_name_node_operator_and_reason(tensorrt: Server) -> None:
    error = _error(tensorrt.run(builds_unsupported))
    assert error["exit_code"] == 2
    assert "does not take 2 nodes of the network" in error["message"]
    assert "node 'Relu_r1' (Relu): Plugin not found, " in error["message"]
    assert "node 'Relu_r2' (Relu)" in error["message"]


def builds_unsupported(world: World) -> Any:
    world.unsupported.add("Relu")
    return builds(world)


@pytest.mark.parametrize(
    ("member", "exit_code", "text"),
    [
        ("create.Builder", 3, "does not start: CUDA initialization failure"),
        ("Builder.create_builder_config", 2, "TensorRT makes no builder configuration"),
        ("Builder.create_network", 2, "TensorRT cannot make a network"),
        ("OnnxParser.parse_from_file", 2, "cannot parse 'net.onnx'"),
        (
            "Builder.build_serialized_network_to_stream",
            2,
            "built no engine: TensorRT gave no reason",
        ),
        ("create.Runtime", 2, "cannot be opened: CUDA initialization failure"),
        ("Runtime.deserialize_cuda_engine", 2, "cannot be opened: TensorRT gave no reason"),
        ("ICudaEngine.create_execution_context", 3, "no execution context"),
        (
            "IExecutionContext.set_input_shape",
            2,
            "refuses the shape (1, 3, 8, 8) of input 'images'",
        ),
        ("IExecutionContext.set_tensor_address", 2, "TensorRT refuses the memory of 'images'"),
        ("IExecutionContext.execute_async_v3", 2, "the execution failed"),
        ("ICudaEngine.create_engine_inspector", 2, "TensorRT makes no engine inspector"),
        ("EngineInspector.get_engine_information", 2, "inspector tells nothing"),
    ],
)
def test_a_native_failure_becomes_a_sentence(
    tensorrt: Server, member: str, exit_code: int, text: str
) -> None:
    error = _error(tensorrt.run(builds_with_failures, failing=[member]))
    assert error["exit_code"] == exit_code, error["trace"]
    assert text in error["message"]


# Class, member, exception, exit code, text of the message. pybind11 raises TypeError for an argument that
# does not fit; RuntimeError and MemoryError are exceptions of C++.
RAISED = [
    ("OnnxParser", "parse_from_file", "RuntimeError", 2, "cannot parse 'net.onnx': it went wrong."),
    ("IBuilderConfig", "get_flag", "TypeError", 2, "what the build used: it went wrong."),
    (
        "Builder",
        "build_serialized_network_to_stream",
        "RuntimeError",
        2,
        "built no engine: it went wrong.",
    ),
    (
        "Builder",
        "build_serialized_network_to_stream",
        "MemoryError",
        2,
        "built no engine: it went wrong.",
    ),
    ("Runtime", "deserialize_cuda_engine", "RuntimeError", 2, "cannot be opened: it went wrong."),
    ("ICudaEngine", "create_execution_context", "RuntimeError", 3, "no execution context: it"),
    (
        "IExecutionContext",
        "execute_async_v3",
        "RuntimeError",
        2,
        "execution failed: it went wrong.",
    ),
]


@pytest.mark.parametrize(("kind", "member", "error", "exit_code", "text"), RAISED)
def test_what_the_bindings_raise_becomes_a_sentence(
    tensorrt: Server, kind: str, member: str, error: str, exit_code: int, text: str
) -> None:
    found = _error(tensorrt.run(builds_raising, kind=kind, member=member, error=error))
    assert found["exit_code"] == exit_code, found["trace"]
    assert text in found["message"]


def builds_raising(world: World, kind: str, member: str, error: str) -> Any:
    import builtins

    import tensorrt

    def fail(*arguments: Any) -> None:
        raise getattr(builtins, error)("it went wrong.\nwith details")

    setattr(getattr(tensorrt, kind), member, fail)
    return builds(world, quantization="explicit")


@pytest.mark.parametrize("settings", [{"workspace": -1}, {"pools": {"WORKSPACE": -1}}])
def test_numbers_that_no_build_takes(tensorrt: Server, settings: dict[str, Any]) -> None:
    error = _error(tensorrt.run(builds, quantization="explicit", **settings))
    assert error["exit_code"] == 2, error["trace"]
    assert f"'{next(iter(settings))}' is at least 0, not -1" in error["message"]


def test_numbers_that_the_bindings_do_not_take(tensorrt: Server) -> None:
    error = _error(tensorrt.run(builds_with_a_negative_pool))
    assert error["exit_code"] == 2, error["trace"]
    assert "refuses an option: set_memory_pool_limit()" in error["message"]


def builds_with_a_negative_pool(world: World) -> Any:
    """Bypasses the options, which refuse such a number themselves."""
    request = networks.request(networks.calibrated(1), networks.batches(4, 1))
    options = replace(request.options, quantization=Quantization.EXPLICIT, workspace=-1)
    return TensorRTBackend().build(replace(request, options=options))


def test_a_refused_profile_is_an_error(tensorrt: Server) -> None:
    settings = {"batch": "N", "shapes": ["images=1x3x8x8"]}
    for member, native, text in (
        ("IBuilderConfig.add_optimization_profile", -1, "refuses optimization profile 0"),
        ("IOptimizationProfile.set_shape", 0, "TensorRT refuses the shapes of input 'images'"),
        ("Builder.create_optimization_profile", 0, "TensorRT makes no optimization profile"),
    ):
        answer = tensorrt.run(builds_with_failures, failing=[member], answer=native, **settings)
        assert text in _error(answer)["message"]


def test_nothing_is_written_when_a_build_fails(tensorrt: Server) -> None:
    answer = tensorrt.run(fails_and_lists, failing=["Builder.build_serialized_network_to_stream"])
    assert answer.value == []


def fails_and_lists(world: World, failing: list[str]) -> list[str]:
    with pytest.raises(Exception, match="built no engine"):
        builds_with_failures(world, failing)
    return [path.name for path in Path().iterdir()]


def test_unknown_and_contradicting_options() -> None:
    from trtbuild.errors import OptionError

    cases = {
        "no option 'wrokspace'": {"wrokspace": 1},
        "'quantization' cannot be 'always': it is one of auto, implicit, explicit": {
            "quantization": "always"
        },
        "'optimization_level' is 0 to 5, not 7": {"optimization_level": 7},
        "'pools' is a whole number, not a number": {"pools": {"WORKSPACE": 1.5}},
        "name that file too": {"lock": "sha256:1"},
        "times nothing": {"optimization_level": 0, "timing_cache": "t"},
        "needs --version-compatible": {"exclude_lean_runtime": True},
        "DLA supports only implicit INT8": {"dla": 0, "quantization": "explicit"},
    }
    for text, settings in cases.items():
        with pytest.raises(OptionError, match=text):
            networks.tensorrt_options(settings)


def _error(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None, "the scenario ended well"
    return answer.error
