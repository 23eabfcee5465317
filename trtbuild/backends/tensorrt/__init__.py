"""TensorRT 10 and 11, and TensorRT for RTX, as a backend: build, check, open."""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbuild.backends.base import Availability, Engine
from trtbuild.backends.tensorrt.apart import build_plan_apart
from trtbuild.backends.tensorrt.builder import Blueprint
from trtbuild.backends.tensorrt.known_issues import issues_of, situation_of
from trtbuild.backends.tensorrt.precision import (
    check_precision,
    check_quantization,
    decide_precision,
    is_int8,
)
from trtbuild.backends.tensorrt.profiles import profiles_for, values_for
from trtbuild.backends.tensorrt.rtx import capabilities, check_rtx, notes, why_not_opened
from trtbuild.errors import MissingError, OptionError
from trtbuild.files import place_file, write_bytes
from trtbuild.model import input_specs, write_model
from trtbuild.options.tensorrt import OpenOptions, RuntimePlatform, TensorRTOptions
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.tensorrt import open_plan
from trtbuild.runtime.tensorrt.engine import weights_of
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan
from trtbuild.runtime.tensorrt.machine import machine_record
from trtbuild.runtime.tensorrt.plugins import plugin_records
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, Product, installed, native_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.backends.base import BuildRequest
    from trtbuild.backends.tensorrt.builder import Built
    from trtbuild.backends.tensorrt.precision import Precision
    from trtbuild.runtime.tensorrt import TensorRTSession
    from trtbuild.runtime.tensorrt.engine import Profile, ShapeRange
    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["TensorRTBackend", "TensorRTOptions"]

_log = logging.getLogger(__name__)

_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")


_HALF_FIGURES = (
    "the figures of TensorRT's form are of what was built: the result of each layer that is not INT8 is "
    "rounded to FP16"
)


class TensorRTBackend:
    """TensorRT, or TensorRT for RTX, through NVIDIA's Python package.

    Args:
        options: how plans are opened until something is built; `build` takes its options from the request,
            and what it built is opened with them.
        product: which of the two.
    """

    def __init__(self, options: OpenOptions | None = None, product: Product = TENSORRT) -> None:
        self._opening = options or OpenOptions()
        self._product = product
        self.name = product.backend
        self.suffix = product.plan_suffix

    def availability(self) -> Availability:
        """Say whether the package and its library are there and fit together, and driver and GPU.

        TensorRT for RTX builds without a GPU, so there it is usable without one.
        """
        try:
            tensorrt = installed(self._product)
        except MissingError as error:
            detail, _, remedy = str(error).partition(". ")
            return Availability(False, detail, remedy)
        native = native_version(tensorrt)
        if native is not None and native != tensorrt.number:
            return Availability(
                False,
                f"{tensorrt.product.name}'s Python package is {tensorrt.number} and its library {native}",
                "Install both from one version.",
            )
        driver = cuda_driver()
        if not driver.problem:
            return Availability(True, f"{tensorrt} on {driver.gpus[0].name}")
        if tensorrt.is_rtx:
            return Availability(True, f"{tensorrt}, which builds without a GPU")
        return Availability(False, f"{tensorrt} is here, and {driver.problem}", driver.remedy)

    def check(self, options: TensorRTOptions, *, int8: bool, fp16: bool) -> None:
        """Refuse what the installed version cannot build, as far as the options tell.

        Raises:
            OptionError: it cannot.
            MissingError: it is not installed.
        """
        tensorrt = installed(self._product)
        if int8:
            check_quantization(tensorrt, options)
        if tensorrt.is_rtx:
            check_rtx(tensorrt, options, fp16=fp16)
        elif options.compute_capabilities or options.runtime_cache:
            raise OptionError(
                f"--compute-capability and --runtime-cache belong to {RTX.name}, and this is {tensorrt}. "
                f"Leave them out, or build with --backend {RTX.backend}."
            )

    def build(self, request: BuildRequest) -> Engine:
        """Build a plan, look at its layers, and write it with its calibration cache.

        Raises:
            ModelError: TensorRT refuses the network or builds nothing; the message has its reasons.
            OptionError: options that contradict each other, the network or the installed version.
            DataError: there is not enough calibration data.
            GateError: the engine does not run in the precision that was asked for; nothing is written.
            MissingError: TensorRT does not start, or the GPU is not there.
        """
        tensorrt = installed(self._product)
        options = request.options
        int8 = is_int8(request.artifact)
        self.check(options, int8=int8, fp16=request.fp16)
        # What was just built here is opened like that, host code included.
        self._opening = dataclasses.replace(
            options, allow_host_code=options.allow_host_code or options.version_compatible
        )
        precision = decide_precision(tensorrt, request)
        _warn_of_known_issues(tensorrt, precision, options, int8=int8)
        inputs = input_specs(request.artifact.source)
        profiles = profiles_for(options.shapes, inputs)
        with tempfile.TemporaryDirectory(prefix=".tensorrt.", dir=request.directory) as folder:
            onnx = Path(folder) / f"{request.artifact.name}.onnx"
            write_model(precision.model, onnx)
            blueprint = Blueprint(
                onnx,
                profiles,
                precision.implicit,
                precision.strongly_typed,
                precision.fp16_flag,
                values_for(options.shape_values, inputs),
            )
            built = build_plan_apart(tensorrt, blueprint, request, options, request.progress)
            for text in built.log.errors:
                _log.warning("%s built a plan and said: %s", tensorrt, text)
            not_opened = _why_not_opened(tensorrt, options)
            layers = EngineLayers((), detailed=False)
            verdict = f"not checked: the plan was not opened, because {not_opened}"
            if not not_opened:
                layers = inspect_plan(built.file, self._opening, self._product)
                verdict = check_precision(layers, precision, fp16=request.fp16)
            told = notes(tensorrt, options, int8=int8, fp16=request.fp16) if tensorrt.is_rtx else ()
            engine = _write(tensorrt, request, options, precision, profiles, built, layers, verdict)
        if request.fp16:
            told = (*told, _HALF_FIGURES)
        return dataclasses.replace(engine, not_opened=not_opened, notes=told)

    def open(self, path: Path) -> TensorRTSession:
        """Open a plan.

        Raises:
            InputError: the file is not a plan for this machine; the message says what it was built for.
            MissingError: TensorRT, the driver, a GPU or memory is missing.
        """
        return open_plan(path, self._opening, self._product)


def _why_not_opened(tensorrt: TensorRT, options: TensorRTOptions) -> str:
    """Return why a plan cannot run on this machine; empty where it can."""
    if tensorrt.is_rtx:
        return why_not_opened(tensorrt, options)
    if options.runtime_platform is not RuntimePlatform.SAME_AS_BUILD:
        return f"it is for {options.runtime_platform}"
    return ""


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
    path = request.directory / f"{request.artifact.name}{tensorrt.product.plan_suffix}"
    files = {path.name: f"{tensorrt.product.name} plan"}
    place_file(built.file, path)
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
        "compute_capabilities": capabilities(tensorrt, options) if tensorrt.is_rtx else (),
        "quantization": precision.quantization,
        "precision": verdict,
        "flags": built.flags,
        "profiles": _profiles_json(profiles),
        "profile_values": _profiles_json(built.values),
        "calibration": _calibration_json(built),
        "timing_cache": built.timing_cache,
        "plugins": plugin_records(options.plugins),
        "kept_fp32": [{"node": k.node, "reason": k.reason} for k in precision.kept_float],
        "weights_bytes": _weights_bytes(built.log),
        "reformats": layers.num_reformats,
        "layers": layers.to_json(),
        "warnings": list(dict.fromkeys(built.log.texts("WARNING"))),  # each once
        "errors": built.log.errors,
    }
    return Engine(tensorrt.product.backend, path, files, details=details)


def _weights_bytes(log: Log) -> int | None:
    """Bytes of weights in the plan, as the builder told them; an INT8 weight is one. None if it did not."""
    told = (match for text in log.texts("INFO") if (match := _WEIGHTS.search(text)))
    last = next(reversed(list(told)), None)
    return int(last[1]) if last else None


def _profiles_json(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    return [{name: given.to_json() for name, given in one.items()} for one in profiles]


def _calibration_json(built: Built) -> dict[str, Any]:
    if not built.range_source:
        return {}
    return {
        "calibrator": built.calibrator,
        "ranges_from": built.range_source,
        "batches": built.num_batches,
        "samples_left_out": built.num_samples_left_out,
    }


def _warn_of_known_issues(
    tensorrt: TensorRT, precision: Precision, options: TensorRTOptions, *, int8: bool
) -> None:
    """Say what is known to make such a build slow, wrong or refused."""
    quantization = ("implicit" if precision.implicit else "explicit") if int8 else ""
    targets = capabilities(tensorrt, options) if tensorrt.is_rtx else ()
    for issue in issues_of(situation_of(tensorrt, options, precision.model, quantization, targets)):
        _log.warning("%s: %s.", tensorrt, str(issue).rstrip("."))
