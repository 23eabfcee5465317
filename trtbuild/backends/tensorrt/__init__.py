"""TensorRT 10 and 11 as a backend: build, check, open."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.backends.base import Availability, Engine
from trtbuild.backends.tensorrt.builder import Blueprint, build_plan
from trtbuild.backends.tensorrt.precision import check_precision, decide_precision
from trtbuild.backends.tensorrt.profiles import profiles_for
from trtbuild.errors import MissingError
from trtbuild.files import write_bytes
from trtbuild.model import input_specs, write_model
from trtbuild.options.tensorrt import OpenOptions, RuntimePlatform, TensorRTOptions
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.tensorrt import open_plan
from trtbuild.runtime.tensorrt.engine import weights_of
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan
from trtbuild.runtime.tensorrt.machine import machine_record
from trtbuild.runtime.tensorrt.versions import installed, native_version

if TYPE_CHECKING:
    from trtbuild.backends.base import BuildRequest
    from trtbuild.backends.tensorrt.builder import Built
    from trtbuild.backends.tensorrt.precision import Precision
    from trtbuild.runtime.tensorrt import TensorRTSession
    from trtbuild.runtime.tensorrt.engine import ShapeRange
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["TensorRTBackend", "TensorRTOptions"]


class TensorRTBackend:
    """TensorRT, through NVIDIA's Python package ``tensorrt``.

    Args:
        options: how plans are opened until something is built; `build` takes its options from the request,
            and what it built is opened with them.
    """

    name = "tensorrt"

    def __init__(self, options: OpenOptions | None = None) -> None:
        self._opening = options or OpenOptions()

    def availability(self) -> Availability:
        """Say whether TensorRT, its library, the driver and a GPU are there and fit together."""
        try:
            tensorrt = installed()
        except MissingError as error:
            detail, _, remedy = str(error).partition(". ")
            return Availability(False, detail, remedy)
        native = native_version(tensorrt)
        if native is not None and native != tensorrt.number:
            return Availability(
                False,
                f"TensorRT's Python package is {tensorrt.number} and its library {native}",
                "Install both from one version.",
            )
        driver = cuda_driver()
        if driver.problem:
            return Availability(False, f"{tensorrt} is here, and {driver.problem}", driver.remedy)
        return Availability(True, f"{tensorrt} on {driver.gpus[0].name}")

    def build(self, request: BuildRequest) -> Engine:
        """Build a plan, look at its layers, and write it with its calibration cache.

        Raises:
            ModelError: TensorRT refuses the network or builds nothing; the message has its reasons.
            OptionError: options that contradict each other, the network or the installed version.
            DataError: there is not enough calibration data.
            GateError: the engine does not run in the precision that was asked for; nothing is written.
            MissingError: TensorRT does not start, or the GPU is not there.
        """
        tensorrt = installed()
        options = request.options
        # What was just built here is opened like that, host code included.
        self._opening = dataclasses.replace(
            options, allow_host_code=options.allow_host_code or options.version_compatible
        )
        precision = decide_precision(tensorrt, request)
        profiles = profiles_for(options.shapes, input_specs(request.artifact.source))
        with tempfile.TemporaryDirectory(prefix=".tensorrt.", dir=request.directory) as folder:
            onnx = Path(folder) / f"{request.artifact.name}.onnx"
            write_model(precision.model, onnx)
            blueprint = Blueprint(
                onnx, profiles, precision.implicit, precision.strongly_typed, precision.fp16_flag
            )
            built = build_plan(tensorrt, blueprint, request, options, request.progress)
            layers = self._inspect(built.plan, Path(folder), options.runtime_platform)
        verdict = check_precision(layers, precision, fp16=request.fp16)
        return _write(tensorrt, request, options, precision, profiles, built, layers, verdict)

    def open(self, path: Path) -> TensorRTSession:
        """Open a plan.

        Raises:
            InputError: the file is not a plan for this machine; the message says what it was built for.
            MissingError: TensorRT, the driver, a GPU or memory is missing.
        """
        return open_plan(path, self._opening)

    def _inspect(self, plan: bytes, folder: Path, platform: RuntimePlatform) -> EngineLayers:
        """The layers of a plan that was just built; none when it cannot run on this machine."""
        if platform is not RuntimePlatform.SAME_AS_BUILD:
            return EngineLayers((), detailed=False)
        path = folder / "new.plan"
        path.write_bytes(plan)
        return inspect_plan(path, self._opening)


def _write(
    tensorrt: TensorRT,
    request: BuildRequest,
    options: TensorRTOptions,
    precision: Precision,
    profiles: list[dict[str, ShapeRange]],
    built: Built,
    layers: EngineLayers,
    verdict: str,
) -> Engine:
    path = request.directory / f"{request.artifact.name}.plan"
    files = {path.name: "TensorRT plan"}
    write_bytes(path, built.plan)
    if built.cache is not None:
        cache = request.directory / f"{request.artifact.name}.cache"
        write_bytes(cache, built.cache)
        files[cache.name] = "TensorRT calibration cache"
    if options.strip_plan:
        for file in write_model(precision.model, weights_of(path)):
            files[file.name] = (
                "the weights that the stripped plan is refitted with when it is opened"
            )
    details = {
        "machine": machine_record(tensorrt.version, options.device),
        "quantization": precision.quantization,
        "precision": verdict,
        "flags": built.flags,
        "profiles": [
            {name: shapes.to_json() for name, shapes in profile.items()} for profile in profiles
        ],
        "calibration": _calibration_json(built),
        "timing_cache": built.timing_cache,
        "kept_fp32": [{"node": k.node, "reason": k.reason} for k in precision.kept_float],
        "reformats": layers.num_reformats,
        "layers": layers.to_json(),
        "warnings": built.log.texts("WARNING"),
    }
    return Engine("tensorrt", path, files, details=details)


def _calibration_json(built: Built) -> dict[str, Any]:
    if not built.range_source:
        return {}
    return {
        "calibrator": built.calibrator,
        "ranges_from": built.range_source,
        "batches": built.num_batches,
        "samples_left_out": built.num_samples_left_out,
    }
