"""One build: network, configuration, calibrator, timing cache, plan; nothing is kept of a failed one."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.advice import advice_on_build
from trtbuild.backends.tensorrt.config import apply_options, set_flag
from trtbuild.backends.tensorrt.implicit import calibrating, choose_ranges
from trtbuild.backends.tensorrt.network import parse_network
from trtbuild.backends.tensorrt.profiles import add_profiles
from trtbuild.backends.tensorrt.progress import interruptible, make_monitor
from trtbuild.backends.tensorrt.shape_inputs import bounded_values, count_values
from trtbuild.backends.tensorrt.timing_cache import load_timing_cache, save_timing_cache
from trtbuild.errors import MissingError, ModelError, OptionError
from trtbuild.files import write_bytes
from trtbuild.runtime.cuda import open_device
from trtbuild.runtime.tensorrt.logger import Log, explained, made, make_logger
from trtbuild.runtime.tensorrt.plugins import load_plugins
from trtbuild.runtime.tensorrt.streams import write_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from calibrators.tensorrt import CalibrationRun
    from trtbuild.backends.base import BuildRequest
    from trtbuild.backends.tensorrt.implicit import ImplicitRanges
    from trtbuild.backends.tensorrt.shape_inputs import Count
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.progress import Progress
    from trtbuild.runtime.cuda import Device
    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.engine import Profile
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Blueprint", "Built", "build_network", "build_plan"]


@dataclass(frozen=True)
class Blueprint:
    """What is built.

    Attributes:
        onnx: file of the network.
        profiles: of its dynamic inputs.
        implicit: INT8 by calibrator; otherwise the network says where INT8 is, if anywhere.
        strongly_typed: types are those of the network.
        fp16_flag: let a weakly typed build choose FP16 kernels.
        values: of inputs that hold shapes, as far as they were given.
    """

    onnx: Path
    profiles: Sequence[Profile]
    implicit: bool
    strongly_typed: bool
    fp16_flag: bool
    values: Sequence[Profile] = ()


@dataclass(frozen=True)
class Built:
    """What came out.

    Attributes:
        file: the serialized engine, beside the file of the network.
        cache: calibration cache of an implicit build.
        range_source: where its ranges came from; empty for explicit and float builds.
        calibrator: name of its calibrator.
        num_batches: calibration batches that TensorRT drew.
        num_samples_left_out: calibration samples of an incomplete last batch.
        timing_cache: file and digest of the timing cache, if there is one.
        flags: names of the builder flags that were set.
        values: of inputs that hold shapes, for each profile.
        log: what TensorRT said.
    """

    file: Path
    cache: bytes | None
    range_source: str
    calibrator: str
    num_batches: int
    num_samples_left_out: int
    timing_cache: dict[str, Any]
    flags: list[str]
    values: Sequence[Profile]
    log: Log

    @property
    def plan(self) -> bytes:
        """The bytes of the plan, read from its file."""
        return self.file.read_bytes()


def build_plan(
    tensorrt: TensorRT,
    blueprint: Blueprint,
    request: BuildRequest,
) -> Built:
    """Build a plan in this process.

    Args:
        tensorrt: the installed version.
        blueprint: what to build.
        request: with its options, and calibration and data for an implicit build; its progress is shown each
            phase of the build.

    Raises:
        ModelError: the network is refused, or no plan came out; the message has TensorRT's reasons.
        OptionError: the version lacks an option, or refuses a value.
        MissingError: TensorRT does not start, or the GPU is not there.
        KeyboardInterrupt: Ctrl-C; the build was cancelled.
    """
    ranges = choose_ranges(tensorrt, request) if blueprint.implicit else None
    return build_network(
        *(tensorrt, blueprint, request.options, request.progress),
        batches=request.calibration_batches,
        count=functools.partial(count_values, request.sample_batches),
        ranges=ranges,
        fp16=request.fp16,
    )


def build_network(
    tensorrt: TensorRT,
    blueprint: Blueprint,
    options: TensorRTOptions,
    progress: Progress,
    *,
    batches: Callable[[], Iterable[Feeds]] | None,
    count: Count,
    ranges: ImplicitRanges | None,
    fp16: bool,
) -> Built:
    """Build a plan in this process, of what `build_plan` takes out of its request.

    Args:
        tensorrt: the installed version.
        blueprint: what to build.
        options: see `TensorRTOptions`.
        progress: shown each phase of the build.
        batches: starts a pass over the calibration data; None where there is none.
        count: how often the samples have which values of some inputs.
        ranges: of an implicit build; None otherwise.
        fp16: whether what is not INT8 runs in FP16; what to do about a failure depends on it.

    Raises:
        ModelError, OptionError, MissingError, KeyboardInterrupt: as of `build_plan`.
        DataError: there is less calibration data than a batch.
        calibrators.CalibratorError: TensorRT did not take what its calibrator offered.
    """
    log = Log()
    logger = make_logger(tensorrt, log)
    file = blueprint.onnx.with_suffix(".plan")
    with _device(options, feeds=ranges is not None and ranges.cache is None) as device:
        builder, config = _started(tensorrt, logger, options, log)
        network, parser = parse_network(
            *(tensorrt, builder, logger, log, blueprint.onnx),
            strongly_typed=blueprint.strongly_typed,
            native_instance_norm=options.version_compatible,
        )
        values = bounded_values(network, blueprint.values, count)
        timing_cache = _configure(tensorrt, builder, config, blueprint, options, values, log)
        with _calibrated(
            *(tensorrt, builder, config, network), ranges, batches, device, log
        ) as run:
            done = _run(*(tensorrt, builder, network, config, log, progress, file))
            if not done and (run is None or run.error is None):
                raise _no_engine(tensorrt, log, fp16=fp16)
            cache = run.finish() if run else None
            timings, flags = _used(tensorrt, config, options, log)
        del parser, timing_cache  # both had to live until here
    feeder = run.feeder if run else None
    return Built(
        file=file,
        cache=cache,
        range_source=ranges.source if ranges else "",
        calibrator=ranges.calibrator if ranges else "",
        num_batches=feeder.num_batches if feeder else 0,
        num_samples_left_out=feeder.num_samples_left_out if feeder else 0,
        timing_cache=timings,
        flags=flags,
        values=values,
        log=log,
    )


@contextlib.contextmanager
def _device(options: TensorRTOptions, *, feeds: bool) -> Iterator[Device | None]:
    """Make the chosen GPU current; without need (the first GPU, no batches) no provider is opened."""
    if not feeds and options.device == 0:
        yield None
        return
    with open_device(options.cuda, options.device) as device, device.active():
        yield device


def _started(
    tensorrt: TensorRT, logger: Any, options: TensorRTOptions, log: Log
) -> tuple[Any, Any]:
    """A builder that knows the plugins, and a configuration."""
    what = f"{tensorrt} does not start"
    with explained(log, what, MissingError, "Run `trtbuild doctor`."):
        builder = tensorrt.module.Builder(logger)
    load_plugins(tensorrt, logger, log, options.plugins)
    return builder, made(builder.create_builder_config(), "builder configuration", log)


def _calibrated(
    tensorrt: TensorRT,
    builder: Any,
    config: Any,
    network: Any,
    ranges: ImplicitRanges | None,
    batches: Callable[[], Iterable[Feeds]] | None,
    device: Device | None,
    log: Log,
) -> contextlib.AbstractContextManager[CalibrationRun | None]:
    """`calibrating` for an implicit build; nothing otherwise."""
    if ranges is None:
        return contextlib.nullcontext()
    return calibrating(tensorrt, builder, config, network, ranges, batches, device, log)


def _configure(
    tensorrt: TensorRT,
    builder: Any,
    config: Any,
    blueprint: Blueprint,
    options: TensorRTOptions,
    values: Sequence[Profile],
    log: Log,
) -> Any:
    """Set options and profiles, and return the timing cache, which has to live until the build is done."""
    with explained(log, f"{tensorrt} refuses an option", OptionError):
        apply_options(tensorrt, builder, config, options, log)
        add_profiles(builder, config, blueprint.profiles, log, values)
        if blueprint.fp16_flag:
            set_flag(tensorrt, config, "FP16", log)
        return load_timing_cache(config, options, log)


def _run(
    tensorrt: TensorRT,
    builder: Any,
    network: Any,
    config: Any,
    log: Log,
    progress: Progress,
    file: Path,
) -> bool:
    """Build into a file, and answer whether a plan came out."""
    with interruptible() as interruption:
        config.progress_monitor = make_monitor(tensorrt, progress, interruption)
        with explained(log, f"{tensorrt} built no engine"):
            if hasattr(builder, "build_serialized_network_to_stream"):
                build = functools.partial(
                    builder.build_serialized_network_to_stream, network, config
                )
                return write_through(tensorrt, file, build)
            plan = builder.build_serialized_network(network, config)
    if plan is not None:
        write_bytes(file, plan)
    return plan is not None


def _no_engine(tensorrt: TensorRT, log: Log, *, fp16: bool) -> ModelError:
    reason = log.reason()
    advice = advice_on_build(reason, fp16=fp16)
    return ModelError(f"{tensorrt} built no engine: {reason}.{advice}")


def _used(
    tensorrt: TensorRT, config: Any, options: TensorRTOptions, log: Log
) -> tuple[dict[str, Any], list[str]]:
    """The timing cache, which is written, and the flags of a build that is done."""
    members = tensorrt.module.BuilderFlag.__members__
    with explained(log, "TensorRT does not tell what the build used"):
        timings = save_timing_cache(config, options, log)
        return timings, sorted(name for name, flag in members.items() if config.get_flag(flag))
