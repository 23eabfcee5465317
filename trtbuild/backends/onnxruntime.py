"""ONNX Runtime on CPU: the embedded backend, always available."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnxruntime as ort

from trtbuild.backends.base import Availability, BuildRequest, Engine
from trtbuild.errors import OptionError
from trtbuild.model import write_model
from trtbuild.quantization import portable_form
from trtbuild.runtime.manifest_beside import PORTABLE_SUFFIX
from trtbuild.runtime.onnxruntime import OnnxRuntimeSession, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.options.tensorrt import TensorRTOptions

__all__ = ["OnnxRuntimeBackend"]

_INT8_ALONE = "ONNX Runtime computes FP16 as FP32 on a CPU; an engine in FP16 needs TensorRT."


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """Builds the form that ONNX Runtime runs in INT8 kernels, and opens any ONNX file."""

    name: str = "onnxruntime"
    suffix: str = PORTABLE_SUFFIX

    def availability(self) -> Availability:
        """Always usable: it is part of the installation."""
        return Availability(usable=True, detail=f"ONNX Runtime {ort.__version__} on CPU")

    def check(self, options: TensorRTOptions, *, int8: bool, fp16: bool) -> None:
        """Refuse a build without INT8. TensorRT's options have no effect; the engine reports them.

        Raises:
            OptionError: INT8 is not asked for.
        """
        del options, fp16
        if not int8:
            raise OptionError(_INT8_ALONE)

    def build(self, request: BuildRequest) -> Engine:
        """Write ``NAME.onnxruntime.onnx``: uint8 activations, Q/DQ around every operator.

        Raises:
            OptionError: the network was not quantized; this backend builds nothing else.
        """
        if request.artifact.quantized is None:
            raise OptionError(_INT8_ALONE)
        model = portable_form(request.artifact)
        path = request.directory / f"{request.artifact.name}{self.suffix}"
        written = write_model(model, path)
        without_effect = tuple(
            sorted([*request.options.changed, *(["fp16"] if request.fp16 else [])])
        )
        what = "the same network in the form that ONNX Runtime runs in INT8 kernels on CPU"
        if request.artifact.placement is None:
            what = "the network with its own Q/DQ, which ONNX Runtime runs on CPU"
        if request.artifact.cut is not None:
            what += f"; only its part in front of {request.artifact.cut.named}"
        return Engine(
            self.name,
            path,
            {file.name: what for file in written},
            without_effect,
            details={
                "onnxruntime": ort.__version__,
                "provider": "CPUExecutionProvider",
                "without_effect": without_effect,
            },
        )

    def open(self, path: Path) -> OnnxRuntimeSession:
        """Open an ONNX file with all optimizations."""
        return open_session(path)
