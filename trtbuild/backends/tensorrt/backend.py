"""TensorRT 10 and 11, and TensorRT for RTX, as a backend: build, check, open."""

from __future__ import annotations

import dataclasses
import functools
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends.base import Availability, Engine
from trtbuild.backends.tensorrt.apart import build_plan_apart
from trtbuild.backends.tensorrt.builder import Blueprint
from trtbuild.backends.tensorrt.engine_record import SeenPlan, engine_record
from trtbuild.backends.tensorrt.implicit import choose_ranges
from trtbuild.backends.tensorrt.known_issues import issues_of, situation_of
from trtbuild.backends.tensorrt.precision import (
    check_precision,
    check_quantization,
    decide_precision,
    is_int8,
)
from trtbuild.backends.tensorrt.profiles import profiles_for, values_for
from trtbuild.backends.tensorrt.rtx import capabilities, check_rtx, notes, why_not_opened
from trtbuild.backends.tensorrt.shape_inputs import BuildData, count_values
from trtbuild.backends.tensorrt.sparsity import sparsity_of
from trtbuild.errors import MissingError, OptionError
from trtbuild.files import place_file, write_bytes
from trtbuild.model import input_specs, write_model
from trtbuild.options.tensorrt import OpenOptions, RuntimePlatform, TensorRTOptions
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.tensorrt import open_plan
from trtbuild.runtime.tensorrt.engine import weights_of
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, Product, installed, native_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.backends.base import BuildRequest
    from trtbuild.backends.tensorrt.builder import Built
    from trtbuild.backends.tensorrt.precision import Precision
    from trtbuild.runtime.tensorrt import TensorRTSession
    from trtbuild.runtime.tensorrt.engine import Profile
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["TensorRTBackend"]

_log = logging.getLogger(__name__)

_HALF_FIGURES = (
    "the figures of TensorRT's form describe what was built: the result of each layer that is not INT8 "
    "is rounded to FP16"
)


class TensorRTBackend:
    """TensorRT, or TensorRT for RTX, through NVIDIA's Python package.

    Args:
        options: how plans are opened before the first build; `build` takes its options from the request, and
            plans that it built are opened with them.
        product: which of the two.
    """

    def __init__(self, options: OpenOptions | None = None, product: Product = TENSORRT) -> None:
        self._opening = options or OpenOptions()
        self._product = product
        self.name = product.backend
        self.suffix = product.plan_suffix

    def availability(self) -> Availability:
        """Say whether package and library are installed in the same version, and whether driver and GPU work.

        TensorRT for RTX builds without a GPU, so it counts as usable without one.
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
                f"{tensorrt.product.name}'s Python package has version {tensorrt.number}, but its "
                f"library {native}",
                "Install both from one version.",
            )
        driver = cuda_driver()
        if not driver.problem:
            return Availability(True, f"{tensorrt} on {driver.gpus[0].name}")
        if tensorrt.is_rtx:
            return Availability(True, f"{tensorrt}, which builds without a GPU")
        return Availability(False, f"{tensorrt} is installed, but {driver.problem}", driver.remedy)

    def check(self, options: TensorRTOptions, *, int8: bool, fp16: bool) -> None:
        """Refuse what the installed version cannot build, as far as the options show it.

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
                f"--compute-capability and --runtime-cache are options of {RTX.name}, but this is "
                f"{tensorrt}. "
                f"Leave them out, or build with --backend {RTX.backend}."
            )

    def build(self, request: BuildRequest) -> Engine:
        """Build a plan, inspect its layers, and write it with its calibration cache.

        Raises:
            ModelError: TensorRT refuses the network or builds nothing; the message has its reasons.
            OptionError: options that contradict each other, the network or the installed version.
            DataError: there is not enough calibration data.
            GateError: the engine does not run in the precision that was asked for; nothing is written.
            MissingError: TensorRT does not start, or there is no GPU.
        """
        tensorrt = installed(self._product)
        options = request.options
        int8 = is_int8(request.artifact)
        self.check(options, int8=int8, fp16=request.fp16)
        # A plan that was just built here may be opened with these options, including its host code.
        self._opening = dataclasses.replace(
            options, allow_host_code=options.allow_host_code or options.version_compatible
        )
        precision = decide_precision(tensorrt, request)
        _warn_of_known_issues(tensorrt, precision, options, int8=int8)
        profiles, values = _bounds(request)
        with tempfile.TemporaryDirectory(prefix=".tensorrt.", dir=request.directory) as folder:
            onnx = Path(folder) / f"{request.artifact.name}.onnx"
            write_model(precision.model, onnx)
            blueprint = Blueprint(
                onnx,
                options,
                precision.strongly_typed,
                precision.fp16_flag,
                request.fp16,
                profiles,
                values,
                choose_ranges(tensorrt, request) if precision.implicit else None,
            )
            samples = functools.partial(count_values, request.sample_batches)
            data = BuildData(request.calibration_batches, samples)
            built = build_plan_apart(tensorrt, blueprint, data, request.progress)
            for text in built.log.errors:
                _log.warning("%s built a plan and said: %s", tensorrt, text)
            seen = self._look_into(built.file, precision, request)
            files = _write(tensorrt, request, precision, built)
            details = engine_record(tensorrt, blueprint, precision, built, seen)
        told = (
            notes(tensorrt, options, request.artifact, fp16=request.fp16) if tensorrt.is_rtx else ()
        )
        if options.sparse:
            sparsity = sparsity_of(precision.model, built.log.texts("INFO"), seen.layers)
            told = (*told, str(sparsity))
            details["sparsity"] = sparsity.to_json()
        if request.fp16:
            told = (*told, _HALF_FIGURES)
        return Engine(
            self.name,
            _plan_path(request, self._product),
            files,
            not_opened=seen.not_opened,
            notes=told,
            details=details,
        )

    def _look_into(self, plan: Path, precision: Precision, request: BuildRequest) -> SeenPlan:
        """What the plan reports about itself; empty if it cannot be opened here."""
        not_opened = _why_not_opened(installed(self._product), request.options)
        if not_opened:
            verdict = f"not checked: the plan was not opened, because {not_opened}"
            return SeenPlan(EngineLayers((), detailed=False), verdict, not_opened)
        layers = inspect_plan(plan, self._opening, self._product)
        return SeenPlan(layers, check_precision(layers, precision, fp16=request.fp16))

    def open(self, path: Path) -> TensorRTSession:
        """Open a plan.

        Raises:
            InputError: the file is not a plan for this machine; the message says what it was built for.
            MissingError: TensorRT, the driver, a GPU or memory is missing.
        """
        return open_plan(path, self._opening, self._product)


def _bounds(request: BuildRequest) -> tuple[Sequence[Profile], Sequence[Profile]]:
    """The profiles of the dynamic inputs, and those of the values of inputs that hold shapes."""
    options, inputs = request.options, input_specs(request.artifact.source)
    return profiles_for(options.shapes, inputs), values_for(options.shape_values, inputs)


def _why_not_opened(tensorrt: TensorRT, options: TensorRTOptions) -> str:
    """Return why a plan cannot run on this machine; empty if it can."""
    if tensorrt.is_rtx:
        return why_not_opened(tensorrt, options)
    if options.runtime_platform is not RuntimePlatform.SAME_AS_BUILD:
        return f"it is for {options.runtime_platform}"
    return ""


def _plan_path(request: BuildRequest, product: Product) -> Path:
    return request.directory / f"{request.artifact.name}{product.plan_suffix}"


def _write(
    tensorrt: TensorRT, request: BuildRequest, precision: Precision, built: Built
) -> dict[str, str]:
    """Write the results of the build; return file name -> description."""
    path = _plan_path(request, tensorrt.product)
    files = {path.name: f"{tensorrt.product.name} plan"}
    place_file(built.file, path)
    if built.cache is not None:
        cache = request.directory / f"{request.artifact.name}.cache"
        write_bytes(cache, built.cache)
        files[cache.name] = "TensorRT calibration cache"
    if request.options.strip_plan:
        for file in write_model(precision.model, weights_of(path)):
            files[file.name] = (
                "the weights that the stripped plan is refitted with when it is opened"
            )
    return files


def _warn_of_known_issues(
    tensorrt: TensorRT, precision: Precision, options: TensorRTOptions, *, int8: bool
) -> None:
    """Warn of known issues that make such a build slow, wrong or refused."""
    quantization = ("implicit" if precision.implicit else "explicit") if int8 else ""
    targets = capabilities(tensorrt, options) if tensorrt.is_rtx else ()
    for issue in issues_of(situation_of(tensorrt, options, precision.model, quantization, targets)):
        _log.warning("%s: %s.", tensorrt, str(issue).rstrip("."))
