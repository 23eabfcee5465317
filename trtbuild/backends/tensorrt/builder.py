"""One build: network, configuration, calibrator, timing cache, plan; a failed build leaves nothing."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.backends.tensorrt.advice import advice_on_build
from trtbuild.backends.tensorrt.config import apply_options, set_flag
from trtbuild.backends.tensorrt.implicit import calibrating
from trtbuild.backends.tensorrt.network import parse_network
from trtbuild.backends.tensorrt.open_builder import OpenBuilder
from trtbuild.backends.tensorrt.profiles import add_profiles
from trtbuild.backends.tensorrt.progress import interruptible, make_monitor
from trtbuild.backends.tensorrt.shape_inputs import NO_DATA, BuildData, bounded_values
from trtbuild.backends.tensorrt.timing_cache import load_timing_cache, save_timing_cache
from trtbuild.errors import ModelError, OptionError
from trtbuild.files import write_bytes
from trtbuild.progress import Progress, silent
from trtbuild.runtime.cuda import open_device
from trtbuild.runtime.tensorrt.logger import explained
from trtbuild.runtime.tensorrt.streams import write_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from calibrators.tensorrt import CalibrationRun
    from trtbuild.backends.tensorrt.implicit import ImplicitRanges
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.runtime.cuda import Device
    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.engine import Profile
    from trtbuild.runtime.tensorrt.logger import Log
    from trtbuild.runtime.tensorrt.versions import TensorRT

__all__ = ["Blueprint", "Built", "build_plan"]


@dataclass(frozen=True)
class Blueprint:
    """What to build, and how: everything that another process needs for it.

    Attributes:
        onnx: file of the network.
        options: see `TensorRTOptions`.
        strongly_typed: whether types are those of the network.
        fp16_flag: whether a weakly typed build may choose FP16 kernels.
        fp16: whether layers that are not INT8 run in FP16, by flag or by type; advice after a failure depends
            on it.
        profiles: profiles of the dynamic inputs.
        values: profiles of inputs that hold shapes, as far as they were given.
        ranges: for a build whose INT8 comes from a calibrator; None if the network says where INT8 is, if
            anywhere.
    """

    onnx: Path
    options: TensorRTOptions
    strongly_typed: bool = True
    fp16_flag: bool = False
    fp16: bool = False
    profiles: Sequence[Profile] = ()
    values: Sequence[Profile] = ()
    ranges: ImplicitRanges | None = None


@dataclass(frozen=True)
class Built:
    """The result of a build.

    Attributes:
        file: the serialized engine, beside the file of the network.
        cache: calibration cache of an implicit build.
        range_source: where its ranges came from; empty for explicit and float builds.
        calibrator: name of its calibrator.
        num_batches: calibration batches that TensorRT read.
        num_samples_left_out: calibration samples of an incomplete last batch.
        timing_cache: file and digest of the timing cache, if there is one.
        flags: names of the builder flags that were set.
        values: values of inputs that hold shapes, for each profile.
        log: TensorRT's log.
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
    data: BuildData = NO_DATA,
    progress: Progress = silent,
) -> Built:
    """Build a plan in this process.

    Args:
        tensorrt: the installed version.
        blueprint: what to build.
        data: answers questions about the samples.
        progress: called in each phase of the build.

    Raises:
        ModelError: the network is refused, or no plan was built; the message has TensorRT's reasons.
        OptionError: the version lacks an option, or refuses a value.
        MissingError: TensorRT does not start, or there is no GPU.
        DataError: there is less calibration data than one batch.
        calibrators.CalibratorError: TensorRT did not accept what its calibrator offered.
        KeyboardInterrupt: Ctrl-C; the build was cancelled.
    """
    options, ranges = blueprint.options, blueprint.ranges
    file = blueprint.onnx.with_suffix(".plan")
    with _device(options, feeds=ranges is not None and ranges.cache is None) as device:
        builder = OpenBuilder.start(tensorrt, options.plugins)
        network, parser = parse_network(
            builder,
            blueprint.onnx,
            strongly_typed=blueprint.strongly_typed,
            native_instance_norm=options.version_compatible,
        )
        values = bounded_values(network, blueprint.values, data.count)
        timing_cache = _configure(builder, blueprint, values)
        with _calibrated(builder, network, ranges, data.batches, device) as run:
            done = _run(builder, network, progress, file)
            if not done and (run is None or run.error is None):
                raise _no_engine(builder, fp16=blueprint.fp16)
            cache = run.finish() if run else None
            timings, flags = _used(builder, options)
        del parser, timing_cache  # both must live until here
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
        log=builder.log,
    )


@contextlib.contextmanager
def _device(options: TensorRTOptions, *, feeds: bool) -> Iterator[Device | None]:
    """Make the chosen GPU current; if not needed (the first GPU, no batches), open no CUDA provider."""
    if not feeds and options.device == 0:
        yield None
        return
    with open_device(options.cuda, options.device) as device, device.active():
        yield device


def _calibrated(
    builder: OpenBuilder,
    network: Any,
    ranges: ImplicitRanges | None,
    batches: Callable[[], Iterable[Feeds]] | None,
    device: Device | None,
) -> contextlib.AbstractContextManager[CalibrationRun | None]:
    """`calibrating` for an implicit build; nothing otherwise."""
    if ranges is None:
        return contextlib.nullcontext()
    return calibrating(builder, network, ranges, batches, device)


def _configure(builder: OpenBuilder, blueprint: Blueprint, values: Sequence[Profile]) -> Any:
    """Set options and profiles; return the timing cache, which must live until the build is done."""
    with explained(builder.log, f"{builder.tensorrt} refuses an option", OptionError):
        apply_options(builder, blueprint.options)
        add_profiles(builder, blueprint.profiles, values)
        if blueprint.fp16_flag:
            set_flag(builder, "FP16")
        return load_timing_cache(builder.config, blueprint.options, builder.log)


def _run(builder: OpenBuilder, network: Any, progress: Progress, file: Path) -> bool:
    """Build into a file, and return whether a plan was built."""
    tensorrt, native, config = builder.tensorrt, builder.native, builder.config
    with interruptible() as interruption:
        config.progress_monitor = make_monitor(tensorrt, progress, interruption)
        with explained(builder.log, f"{tensorrt} built no engine"):
            if hasattr(native, "build_serialized_network_to_stream"):
                build = functools.partial(
                    native.build_serialized_network_to_stream, network, config
                )
                return write_through(tensorrt, file, build)
            plan = native.build_serialized_network(network, config)
    if plan is not None:
        write_bytes(file, plan)
    return plan is not None


def _no_engine(builder: OpenBuilder, *, fp16: bool) -> ModelError:
    reason = builder.log.reason()
    advice = advice_on_build(reason, fp16=fp16)
    return ModelError(f"{builder.tensorrt} built no engine: {reason}.{advice}")


def _used(builder: OpenBuilder, options: TensorRTOptions) -> tuple[dict[str, Any], list[str]]:
    """Save the timing cache of a finished build; return its record and the flags that were set."""
    members = builder.tensorrt.module.BuilderFlag.__members__
    config, log = builder.config, builder.log
    with explained(log, "TensorRT does not tell what the build used"):
        timings = save_timing_cache(config, options, log)
        return timings, sorted(name for name, flag in members.items() if config.get_flag(flag))
