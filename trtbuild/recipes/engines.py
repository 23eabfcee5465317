"""Recipes of the jobs that build, judge and time engines."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends import AUTO
from trtbuild.backends.base import Backend
from trtbuild.options.calibrate import CalibrateOptions
from trtbuild.options.compare import ComparisonOptions, Diagnosis, TaskOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.options.fields import group, option
from trtbuild.options.measure import (
    DEFAULT_MARGIN_PERCENT,
    BuildSpeedLimits,
    MeasureOptions,
    SpeedLimits,
)
from trtbuild.options.optimize import OptimizeOptions
from trtbuild.options.tensorrt import OpenOptions, RangeSource, TensorRTOptions
from trtbuild.options.training import parse_stage_drop, stage_drop_text
from trtbuild.options.tune import TuneOptions
from trtbuild.plugins import BACKEND
from trtbuild.pytorch.spec import ExportSpec, ModuleSource
from trtbuild.recipes.texts import (
    BATCH,
    EFFORT,
    FLOAT,
    GROUPS,
    JUDGES,
    SAMPLES_A_RUN,
    STRICT,
    TARGET,
    TOO_FEW,
)
from trtbuild.target import TARGETS
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    from trtbuild.artifact import Record

__all__ = ["BenchRecipe", "EngineRecipe", "VerifyRecipe"]

_STRICT_ENGINE = f"{STRICT} {TOO_FEW}"


def _batch_sizes(text: str) -> int:
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(
            f"cannot be '{text}': a batch has at least one sample; write for example 1,8,32"
        )
    return size


@dataclass(frozen=True)
class EngineRecipe:
    """All options for building an engine.

    Attributes:
        export: how a PyTorch module becomes `model`; None if `model` exists already.
        earlier: records of earlier steps, such as the export; they go into the manifest.
        loaded: the module as it was loaded, if it was pruned since; all figures refer to it.
    """

    model: Path = option(MISSING, "The float network, an ONNX file.", argument=True)
    output: Path = option(
        Path("out"), "Folder for the results; made if absent.", short="-o", essential=True
    )
    int8: bool = option(
        True, "Build in INT8.", when_absent="none; say --int8, --fp16, or both", essential=True
    )
    fp16: bool = option(
        False, "Run layers that are not INT8 in FP16 (TensorRT only).", essential=True
    )
    weights_only: bool = option(
        False, "Store only the weights in INT8 and compute in float: a smaller file, but no faster engine.",
    )  # fmt: skip
    quantized: bool = option(
        False, "The network is quantized already (QAT, other tools): keep its scales. Also detected "
               "without this option; with it, a float network is an error.",
    )  # fmt: skip
    float_model: Path | None = option(
        None, "The float network that a quantized one is judged against.",
        when_absent="the quantized one without Q/DQ",
    )  # fmt: skip
    data: DataRecipe = group(DataRecipe, "Data")
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    calibration: Path | None = option(
        None, "Use the ranges of this calibration file; do not calibrate.", essential=True
    )
    effort: Effort = option(
        Effort.NORMAL,
        EFFORT,
        essential=True,
    )  # fmt: skip
    float_patterns: tuple[str, ...] = option(
        (), FLOAT, flag="--float", metavar="PATTERN", essential=True
    )
    float_groups: tuple[str, ...] = option((), GROUPS, flag="--float-group", metavar="NAME")
    strict: bool = option(False, _STRICT_ENGINE)
    target: str | None = option(
        None, TARGET, choices=tuple(TARGETS), when_absent="that of the backend"
    )
    optimize: OptimizeOptions = group(
        OptimizeOptions, "Graph passes", file_only=("seed", "max_rounds")
    )
    backend: str | Backend = option(
        AUTO, "Builder of the engine: tensorrt, tensorrt-rtx, onnxruntime, auto (TensorRT where it works, "
        "else ONNX Runtime), or your own, module:class.", plugin=BACKEND, takes_objects=True,
        essential=True,
    )  # fmt: skip
    also: str | Backend | None = option(
        None, "Build an engine with this backend, too, such as tensorrt-rtx.", metavar="BACKEND",
        plugin=BACKEND, takes_objects=True,
    )  # fmt: skip
    tensorrt: TensorRTOptions = group(TensorRTOptions, "TensorRT")
    batch_size: int = option(8, BATCH, low=1)
    task: TaskOptions = group(TaskOptions, "Task")
    gate: Gate = group(Gate, "Limits")
    stage_drops: tuple[tuple[str, float], ...] = option(
        (), "Largest loss of one step, in points of top-1, or without labels of the task's figure: pruned, "
        "weights (in INT8), form (TensorRT's) or engine. Repeatable.",
        flag="--max-stage-drop", metavar="STAGE=POINTS", parse=parse_stage_drop, write=stage_drop_text,
    )  # fmt: skip
    tune: TuneOptions | None = group(
        TuneOptions, "Search", switch="--tune", essential=True,
        help="With an accuracy limit: search for the cheapest way to meet it.",
    )  # fmt: skip
    latency: MeasureOptions | None = group(
        MeasureOptions, "Latency", switch="--latency", help="Measure latency.", essential=True,
        otherwise={"duration_ms": 2000.0},
    )  # fmt: skip
    speed_limits: BuildSpeedLimits = group(BuildSpeedLimits, "Limits on speed")
    fp16_baseline: bool = option(
        True, "If the backend builds FP16, also build and time an FP16 engine to compare with; it is not "
              "kept.",
    )  # fmt: skip
    export: ExportSpec | None = group(
        ExportSpec, "Export of a PyTorch module", optional=True, needs=("source",)
    )
    earlier: tuple[Record, ...] = ()
    loaded: Path | None = None

    @property
    def calibrates(self) -> bool:
        """Whether ranges come from data; else there are none, or a file has them."""
        return self.int8 and self.calibration is None

    @property
    def calibrate_options(self) -> CalibrateOptions:
        """The options of a calibration, with what the other options say about it."""
        return replace(
            self.calibrate, batch_size=self.batch_size, preprocess=self.data.preprocess_text
        )

    @property
    def chooses_ranges(self) -> bool:
        """Whether ranges are still to be chosen: the user named no rule, file or TensorRT calibrator."""
        named = self.calibrate.method is not None or bool(self.calibrate.method_options)
        by_tensorrt = self.tensorrt.ranges is RangeSource.DEVICE or self.tensorrt.cache is not None
        return self.calibration is None and not (named or by_tensorrt or self.weights_only)

    @property
    def may_search(self) -> bool:
        """Whether a missed limit starts a search for the layers to keep in float."""
        has_budget = self.tune is not None and bool(self.gate.limits)
        return self.calibrates and has_budget and not self.weights_only


@dataclass(frozen=True, kw_only=True)
class VerifyRecipe:
    """What to compare, on which data, and what to examine; all of the data verifies.

    Attributes:
        reference: float ONNX file, or a PyTorch module.
        engine: the engine to judge: a plan, or an ONNX file with Q/DQ.
    """

    reference: Path | ModuleSource
    engine: Path
    data: DataRecipe = group(DataRecipe, "Data", file_only=("verify_data",))
    backend: str | Backend = option(
        AUTO, "Runtime that opens ENGINE; auto: by the file.", plugin=BACKEND, takes_objects=True,
        essential=True,
    )  # fmt: skip
    batch_size: int = option(8, SAMPLES_A_RUN, low=1)
    options: ComparisonOptions = group(ComparisonOptions, "Comparison")
    diagnosis: Diagnosis = group(Diagnosis, "Diagnosis")
    tensorrt: OpenOptions = group(OpenOptions, "TensorRT")
    task: TaskOptions = group(TaskOptions, "Task")
    gate: Gate = group(Gate, "Limits")
    strict: bool = option(False, TOO_FEW)


@dataclass(frozen=True, kw_only=True)
class BenchRecipe:
    """What to time, and what to compare it with; uses random numbers without data.

    Attributes:
        engine: the file to time.
    """

    engine: Path
    against: Path | None = option(
        None, "Compare with another engine, in turns, or with a baseline of this device.",
        metavar="ENGINE|BASELINE.json", essential=True,
    )  # fmt: skip
    data: DataRecipe = group(DataRecipe, "Data", file_only=(*JUDGES, "num_images", "random_data"))
    backend: str | Backend = option(
        AUTO, "Runtime that opens the engines; auto: by the file.", plugin=BACKEND, takes_objects=True,
        essential=True,
    )  # fmt: skip
    tensorrt: OpenOptions = group(OpenOptions, "TensorRT")
    batch_sizes: tuple[int, ...] = option(
        (), "One batch size, or several for a sweep.", flag="--batch-size", metavar="N[,N...]",
        separator=",", parse=_batch_sizes, when_absent="what the engine fixes, else 1", essential=True,
    )  # fmt: skip
    measure: MeasureOptions = group(MeasureOptions, "Latency")
    speed_limits: SpeedLimits = group(SpeedLimits, "Limits on speed")
    margin_percent: float = option(
        DEFAULT_MARGIN_PERCENT, "Smaller differences count as none.", flag="--within",
        unit="percent", essential=True,
    )  # fmt: skip
    save_baseline: Path | None = option(
        None,
        "Keep the latencies for --against on this device; one batch size only.",
        essential=True,
    )
    layer_times: Path | None = option(
        None, "Write the time of each layer of the engine, by the runtime's profiler, as JSON for `diff`.",
        essential=True,
    )  # fmt: skip
