"""samples/deploy/infer.py on the real bindings, with the real cuda-python and the real pycuda."""

from __future__ import annotations

import ctypes
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.tensorrt_stub import fixtures
from tests.tensorrt_stub.world import install
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World

SAMPLE = Path(__file__).resolve().parents[4] / "samples" / "deploy" / "infer.py"


def infers(
    world: World, package: str, damage: bool = False, portable: bool = False, lean: bool = False
) -> dict[str, Any]:
    artifact = networks.float_artifact("N")
    shapes = ["images=1x3x8x8:4x3x8x8:8x3x8x8"]
    request = networks.request(artifact, None, shapes=shapes, version_compatible=portable)
    plan = TensorRTBackend().build(request).path
    if damage:
        plan.write_bytes(b"x" + plan.read_bytes())
    feeds = networks.batches(1, 5, seed=6)[0]
    np.savez("in.npz", **feeds)
    np.save("in.npy", feeds["images"])
    hidden = {"cuda-python": "pycuda", "pycuda": "cuda.bindings"}[package]
    sys.modules[hidden] = None  # type: ignore[assignment]
    for name in [name for name in sys.modules if name.startswith("trtbuild")]:
        sys.modules[name] = None  # type: ignore[assignment]
    if lean:
        use_lean_runtime(world)
    errors = []
    allowed = ["--allow-host-code"] if portable else []
    for given in ("in.npz", "in.npy"):
        runpy.run_path(str(SAMPLE))["main"]([str(plan), given, "-o", "out.npz", *allowed])
        errors.append(np.abs(np.load("out.npz")["scores"] - _wanted(artifact, feeds)).max())
    return {"error": float(max(errors))}


def use_lean_runtime(world: World) -> None:
    """Hide the full package, and let NVIDIA's lean bindings call the stand-in library."""
    import tensorrt_lean_bindings

    assert not hasattr(tensorrt_lean_bindings, "Builder")
    install(ctypes.CDLL("libnvinfer_lean.so.10"), world.major, world.number)
    sys.modules["tensorrt"] = None  # type: ignore[assignment]
    sys.modules["tensorrt_lean"] = tensorrt_lean_bindings


def _wanted(artifact: Any, feeds: dict[str, np.ndarray]) -> np.ndarray:
    import onnx_ir as ir
    import onnxruntime

    model = ir.to_proto(artifact.source).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_it_infers_without_trtbuild(tensorrt: Server, package: str) -> None:
    if package == "pycuda":
        fixtures.build_pycuda()
    answer = tensorrt.run(infers, package=package)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["error"] < 1e-5


def test_the_lean_runtime_runs_version_compatible_plans(tensorrt10: Server) -> None:
    answer = tensorrt10.run(infers, package="cuda-python", portable=True, lean=True)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["error"] < 1e-5


def test_a_damaged_plan_is_a_sentence(tensorrt: Server) -> None:
    error = tensorrt.run(infers, package="cuda-python", damage=True).error
    assert error is not None
    assert error["type"] == "SystemExit"
    assert "was built for another TensorRT or GPU, is damaged" in error["message"]
