"""Chooses the profiler for the layers of a build's network: that of the first backend, if it runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.backends.opening import built_by
from trtbuild.machine import package_versions
from trtbuild.options.compare import REFERENCE_BACKEND
from trtbuild.quantization import portable_form
from trtbuild.runtime.onnxruntime_profile import ProfiledNetwork
from trtbuild.runtime.tensorrt import TensorRTSession
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT
from trtbuild.search.float_costs import LayerTiming

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.latency.layer_times import ProfiledSession
    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.runtime.session import Feeds

__all__ = ["timing_of"]


def timing_of(backend: str, options: OpenOptions) -> LayerTiming:
    """Return how `backend` times layers, or why it cannot.

    Args:
        backend: name of the backend that builds the engine.
        options: TensorRT's options for opening plans.
    """
    if backend == REFERENCE_BACKEND:
        version = package_versions("onnxruntime")["onnxruntime"]
        return LayerTiming(
            f"ONNX Runtime {version}'s profiler",
            portable_form,
            lambda model, _: ProfiledNetwork(model),
        )
    if backend == TENSORRT.backend:

        def opened(model: ir.Model, example: Feeds) -> ProfiledSession:
            session = built_by(backend, example, options)(model)
            assert isinstance(session, TensorRTSession)
            return session

        return LayerTiming("TensorRT's profiler", _quantized, opened)
    why = "a plan for RTX runs on its GPU alone" if backend == RTX.backend else ""
    return LayerTiming(why_not=why or f"the backend '{backend}' does not time its layers")


def _quantized(artifact: Artifact) -> ir.Model:
    assert artifact.quantized is not None
    return artifact.quantized
