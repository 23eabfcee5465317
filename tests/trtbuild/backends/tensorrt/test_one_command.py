"""The main job on a machine with TensorRT: one command line for 10 and 11."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.command import FAST
from tests.tensorrt_stub import fixtures
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.cli.main import run
from trtbuild.files import file_digest
from trtbuild.model import write_model

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World


def engine(
    world: World,
    batch: Any = 1,
    options: tuple[str, ...] = (),
    num: int = 24,
    int8: bool = True,
    latency: bool = False,
) -> dict[str, Any]:
    """Run ``trtbuild engine`` in the working directory; return the exit code and the written files."""
    write_model(networks.network(batch), Path("net.onnx"))
    images = np.concatenate([feeds["images"] for feeds in networks.batches(num)])
    np.savez("images.npz", images=images)
    speed = ("--seconds", "0.05", "--warmup-ms", "1") if latency else ("--no-latency",)
    command = ["engine", "net.onnx", "--data", "images.npz", *speed, "-q", *FAST, *options]
    code = run([*command, "--int8"] if int8 else command)
    manifest = Path("out/net.manifest.json")
    return {
        "code": code,
        "files": sorted(path.name for path in Path("out").glob("*")),
        "manifest": json.loads(manifest.read_text()) if manifest.exists() else None,
        "timings": file_digest(Path("times")) if Path("times").exists() else None,
        "num_batches": len(world.batches),
        "shapes": sorted({str(np.asarray(b["images"]).shape) for b in world.batches}),
    }


def test_one_command_line_for_both(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, options=("--calibrator", "entropy"))
    assert answer.error is None, answer.error["trace"]
    built = answer.value
    assert built["code"] == 0, answer.stderr
    record = built["manifest"]["engine"]
    assert record["backend"] == "tensorrt"
    assert record["file"] == "net.plan"
    assert record["details"]["quantization"] == {10: "implicit", 11: "explicit"}[tensorrt.major]
    assert ("net.cache" in built["files"]) == (tensorrt.major == 10)
    assert (built["num_batches"] > 0) == (tensorrt.major == 10)
    assert record["details"]["machine"]["gpu"] == "Stand-in GPU 0"
    layers = {layer["name"]: layer for layer in record["details"]["layers"]}
    assert layers["Conv_c1"]["precision"] == "INT8"
    assert built["manifest"]["passed"]


def test_ranges_chosen_by_effect_reach_tensorrt_without_batches(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, options=("--effort", "normal"))
    assert answer.error is None, answer.error["trace"]
    built = answer.value
    assert built["code"] == 0, answer.stderr
    assert built["num_batches"] == 0
    assert built["manifest"]["calibration"]["method"] == "effect"
    assert built["manifest"]["recipe"]["effort"] == "normal"
    assert ("net.cache" in built["files"]) == (tensorrt.major == 10)


def test_nothing_is_said_to_stay_in_float_where_tensorrt_picks(tensorrt: Server) -> None:
    options = ("--effort", "normal", "--task", "embed", "--max-float", "50")
    answer = tensorrt.run(engine, options=options)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0, answer.stderr
    manifest = answer.value["manifest"]
    reasons = {one["reason"] for one in manifest["layers"] if not one["int8"]}
    is_explicit = manifest["engine"]["details"]["quantization"] == "explicit"
    assert any(one.startswith("kept in float: ") for one in reasons) == is_explicit


def test_a_dynamic_network_with_profiles(tensorrt: Server) -> None:
    options = (
        "--shape",
        "images=1x3x8x8:4x3x8x8:8x3x8x8",
        "--batch-size",
        "4",
        "--workspace",
        "64MiB",
        "--calibrator",
        "entropy",
    )
    answer = tensorrt.run(engine, batch="N", options=options)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0, answer.stderr
    assert [0, 64 << 20] in answer.called("IBuilderConfig.set_memory_pool_limit")
    if tensorrt.major == 10:
        assert answer.value["shapes"] == ["(4, 3, 8, 8)"]


def exported(world: World) -> dict[str, Any]:
    """A dynamic network's plan in a Triton model repository."""
    options = ("--shape", "images=1x3x8x8:4x3x8x8:8x3x8x8", "--calibrator", "entropy")
    built = engine(world, batch="N", options=options)
    code = run(["export-triton", "out", "-o", "repository", "-q"])
    entry = Path("repository/net")
    return {
        "codes": (built["code"], code),
        "config": (entry / "config.pbtxt").read_text(),
        "same": (entry / "1/model.plan").read_bytes() == Path("out/net.plan").read_bytes(),
    }


def test_a_plan_goes_into_a_triton_repository(tensorrt: Server) -> None:
    answer = tensorrt.run(exported)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["codes"] == [0, 0], answer.stderr
    assert answer.value["same"]
    config = answer.value["config"]
    assert "max_batch_size: 8" in config  # of the profile
    assert "dims: [ 3, 8, 8 ]" in config
    assert "dims: [ 16 ]" in config


def test_a_dynamic_network_without_shapes_says_what_to_give(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, batch="N")
    assert answer.value["code"] == 2
    assert "--shape 'images=1x3x8x8:8x3x8x8:32x3x8x8'" in answer.stderr
    assert answer.value["manifest"] is None


def without_a_gpu(world: World, backend: str) -> dict[str, Any]:
    import ctypes

    ctypes.CDLL("libcuda.so.1").standin_set_devices(0)
    return engine(world, options=("--backend", backend))


def test_tensorrt_without_a_gpu_falls_back_and_says_so(tensorrt: Server) -> None:
    answer = tensorrt.run(without_a_gpu, backend="auto")
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0
    record = answer.value["manifest"]["engine"]
    assert record["backend"] == "onnxruntime"
    assert "the CUDA driver sees no GPU" in record["why"]


def test_tensorrt_by_name_without_a_gpu_ends_with_3(tensorrt: Server) -> None:
    answer = tensorrt.run(without_a_gpu, backend="tensorrt")
    assert answer.value["code"] == 3
    assert "CUDA_VISIBLE_DEVICES" in answer.stderr


def test_bindings_without_their_library(tensorrt: Server) -> None:
    """The user has installed only the Python package."""
    environment = fixtures.environment(tensorrt.major) | {"LD_LIBRARY_PATH": ""}
    code = "from trtbuild.backends import choose_backend; choose_backend('tensorrt')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingError" in last
    assert "its library does not load" in last
    assert f"libnvonnxparser.so.{tensorrt.major}" in last


def with_another_library(world: World) -> dict[str, Any]:
    import ctypes

    library = ctypes.CDLL(f"libnvinfer.so.{world.major}")
    library.standin_set_library_version(world.number - 100)
    return engine(world, options=("--backend", "tensorrt"))


def test_bindings_and_library_of_two_versions(tensorrt: Server) -> None:
    answer = tensorrt.run(with_another_library)
    assert answer.value["code"] == 3
    assert "Install both from one version" in answer.stderr


def test_int8_and_fp16_with_one_command(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, options=("--fp16", "--quantization", "explicit"))
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0, answer.stderr
    manifest = answer.value["manifest"]
    assert manifest["engine"]["details"]["kept_fp32"] == []
    # Every computed tensor was calibrated, not only those with Q/DQ.
    assert {"c1", "c2", "sum", "scores"} <= manifest["calibration"]["amax"].keys()


def test_fp16_alone(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, int8=False, options=("--fp16",))
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0, answer.stderr
    manifest = answer.value["manifest"]
    assert manifest["calibration"] is None
    assert manifest["engine"]["details"]["quantization"] == "none"
    assert answer.value["files"] == ["net.manifest.json", "net.plan"]
    assert answer.value["num_batches"] == 0


def test_int8_is_timed_against_fp16_as_well(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, latency=True, options=("--timing-cache", "times"))
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0, answer.stderr
    manifest = answer.value["manifest"]
    assert manifest["without_fp16"] == ""
    assert set(manifest["latency"]) == {"float", "engine", "fp16"}
    against = manifest["latency_against_fp16"]
    assert (against["base"], against["candidate"]) == ("FP16", "engine")
    assert against["answer"] in {"faster", "same", "slower", "cannot tell"}
    assert manifest["latency_verdicts"]["engine"]["base"] == "float in ONNX Runtime on the CPU"
    # the FP16 build leaves no file, and does not change the files of the INT8 build
    assert [name for name in answer.value["files"] if name.endswith(".plan")] == ["net.plan"]
    assert manifest["engine"]["details"]["quantization"] in {"implicit", "explicit"}
    assert manifest["engine"]["details"]["timing_cache"]["digest"] == answer.value["timings"]


def test_without_its_baseline_only_one_engine_is_built(tensorrt11: Server) -> None:
    answer = tensorrt11.run(engine, latency=True, options=("--no-fp16-baseline",))
    assert answer.value["code"] == 0, answer.stderr
    assert set(answer.value["manifest"]["latency"]) == {"float", "engine"}
    assert answer.value["manifest"]["latency_against_fp16"] is None
    assert answer.value["manifest"]["without_fp16"] == ""


def with_a_broken_fp16(world: World, at: str) -> dict[str, Any]:
    from trtbuild.backends.tensorrt import TensorRTBackend
    from trtbuild.errors import DeviceError

    build, opened = TensorRTBackend.build, TensorRTBackend.open
    in_fp16 = []

    def failing(*_: Any) -> Any:
        raise DeviceError("there is no memory left.")

    def build_or_fail(backend: Any, request: Any) -> Any:
        in_fp16.append(request.fp16)
        return failing() if request.fp16 and at == "build" else build(backend, request)

    def open_or_fail(backend: Any, path: Path) -> Any:
        session = opened(backend, path)
        if in_fp16[-1]:
            session.run = failing
        return session

    TensorRTBackend.build, TensorRTBackend.open = build_or_fail, open_or_fail
    return engine(world, latency=True)


@pytest.mark.parametrize("at", ["build", "run"])
def test_an_fp16_engine_that_fails_costs_nothing_else(tensorrt11: Server, at: str) -> None:
    answer = tensorrt11.run(with_a_broken_fp16, at=at)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["code"] == 0
    assert answer.value["manifest"]["without_fp16"] == "there is no memory left"
    assert set(answer.value["manifest"]["latency"]) == {"float", "engine"}


def test_fp16_alone_needs_tensorrt(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, int8=False, options=("--fp16", "--backend", "onnxruntime"))
    assert answer.value["code"] == 2
    assert "an engine in FP16 needs TensorRT" in answer.stderr


@pytest.mark.parametrize("flag", ["--workspace", "--pool"])
def test_bad_sizes(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["engine", "net.onnx", "--int8", flag, "WORKSPACE=lots"]) == 2
    assert "is not a size" in capsys.readouterr().err


def verifies_and_times(world: World, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """``trtbuild verify`` and ``bench`` on a version compatible plan."""
    built = engine(world, options=("--version-compatible",))
    data = ["--data", "images.npz"]
    verified = run(
        ["verify", "net.onnx", "out/net.plan", *data, "-q", "--min-cosine", "0.9", *options]
    )
    timed = run(["bench", "out/net.plan", "--seconds", "0.1", "--warmup-ms", "1", "-q", *options])
    return {"built": built["code"], "verified": verified, "timed": timed}


def test_plans_are_verified_and_timed_with_the_options_that_open_them(tensorrt: Server) -> None:
    refused = tensorrt.run(verifies_and_times)
    assert refused.value == {"built": 0, "verified": 2, "timed": 2}
    assert "--allow-host-code" in refused.stderr
    opened = tensorrt.run(
        verifies_and_times, options=("--allow-host-code", "--cuda", "cuda-python")
    )
    assert opened.value == {"built": 0, "verified": 0, "timed": 0}, opened.stderr


def test_wrong_options_are_found_before_anything_is_calibrated(tensorrt: Server) -> None:
    answer = tensorrt.run(engine, options=("--opt-level", "0", "--timing-cache", "t"))
    assert answer.value["code"] == 2
    assert "times nothing" in answer.stderr
    assert answer.calls == []


def falls_back_with_options(world: World) -> dict[str, Any]:
    built = engine(world, options=("--backend", "onnxruntime", "--fp16", "--workspace", "1GiB"))
    return dict(built["manifest"]["engine"]["details"])


def test_options_without_effect_are_recorded(tensorrt10: Server) -> None:
    assert tensorrt10.value(falls_back_with_options)["without_effect"] == ["fp16", "workspace"]
