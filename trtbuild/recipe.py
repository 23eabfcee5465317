"""What the user asked for, one recipe a job; the command line, recipe files and scripts make these."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends import AUTO
from trtbuild.backends.base import Backend  # noqa: TC001  options are read off the types
from trtbuild.errors import OptionError
from trtbuild.options.calibrate import AS_TENSORRT, METHOD_NAMES, CalibrateOptions
from trtbuild.options.compare import ComparisonOptions, Diagnosis, TaskOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.options.fields import group, option
from trtbuild.options.measure import DEFAULT_MARGIN_PERCENT, MeasureOptions
from trtbuild.options.optimize import OptimizeOptions
from trtbuild.options.tensorrt import OpenOptions, TensorRTOptions
from trtbuild.options.training import parse_stage_drop, stage_drop_text
from trtbuild.options.tune import TuneOptions
from trtbuild.plugins import BACKEND, CALIBRATOR
from trtbuild.pytorch.spec import (
    PRUNES,
    ExportSpec,
    InputSpec,
    ModuleSource,
    PruneSpec,
    parse_input,
)
from trtbuild.target import TARGETS
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    from trtbuild.artifact import Record

__all__ = [
    "AdviseRecipe",
    "BenchRecipe",
    "CalibrateRecipe",
    "CalibrationFiles",
    "CheckRecipe",
    "ConvertRecipe",
    "DataRecipe",
    "EngineRecipe",
    "OptimizeRecipe",
    "PruneRecipe",
    "QatRecipe",
    "QuantizeRecipe",
    "TritonRecipe",
    "VerifyRecipe",
]

# What data of `bench` and `calibrate` have no use for.
_JUDGES = ("verify_data", "labels")
_FLOAT = "Keep groups of Q/DQ in float: node name, op type, or glob. Repeatable."
_TARGET = "What Q/DQ are placed for: what it runs in float, or cheaper in float, stays float."
_STRICT = "Refuse a tensor that was always zero or has no range; else what reads it stays float."
_TOO_FEW = "Exit with 5 where too few samples leave it open whether the engine can be shipped."
_STRICT_ENGINE = f"{_STRICT} {_TOO_FEW}"
_GROUPS = "Keep the group of exactly this name in float; never read as a pattern. Repeatable."


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
    """Everything that makes an engine.

    Attributes:
        export: the way from a PyTorch module to `model`; None where `model` is there already.
        earlier: what was done to the network before, such as its export; goes into the manifest.
        loaded: the module as it was loaded, where less of it is built; every figure counts from it.
    """

    model: Path = option(MISSING, "The float network, an ONNX file.", argument=True)
    output: Path = option(
        Path("out"), "Folder for the results; made if absent.", short="-o", essential=True
    )
    int8: bool = option(
        True, "Build in INT8.", when_absent="none; say --int8, --fp16, or both", essential=True
    )
    fp16: bool = option(False, "What is not INT8 runs in FP16; TensorRT alone.", essential=True)
    weights_only: bool = option(
        False, "Weights alone are in INT8, everything computes in float: a smaller file, no faster engine.",
    )  # fmt: skip
    quantized: bool = option(
        False, "The network is quantized already (QAT, other tools): keep its scales. Such a network is "
        "recognised, too; this makes sure.",
    )  # fmt: skip
    float_model: Path | None = option(
        None, "The float network that a quantized one is judged against.",
        when_absent="the quantized one without Q/DQ",
    )  # fmt: skip
    data: DataRecipe = group(DataRecipe, "Data")
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    calibration: Path | None = option(None, "Use these ranges; do not calibrate.", essential=True)
    effort: Effort = option(
        Effort.NORMAL, "How much is tried to choose ranges, where neither a rule nor a file is named.",
        essential=True,
    )  # fmt: skip
    float_patterns: tuple[str, ...] = option(
        (), _FLOAT, flag="--float", metavar="PATTERN", essential=True
    )
    float_groups: tuple[str, ...] = option((), _GROUPS, flag="--float-group", metavar="NAME")
    strict: bool = option(False, _STRICT_ENGINE)
    target: str | None = option(
        None, _TARGET, choices=tuple(TARGETS), when_absent="that of the backend"
    )
    optimize: OptimizeOptions = group(
        OptimizeOptions, "Graph passes", file_only=("seed", "max_rounds")
    )
    backend: str | Backend = option(
        AUTO, "What builds the engine: tensorrt, tensorrt-rtx, onnxruntime, auto (TensorRT where it works, "
        "else ONNX Runtime), or your own, module:class.", plugin=BACKEND, takes_objects=True,
        essential=True,
    )  # fmt: skip
    also: str | Backend | None = option(
        None, "Build an engine with this backend, too, such as tensorrt-rtx.", metavar="BACKEND",
        plugin=BACKEND, takes_objects=True,
    )  # fmt: skip
    tensorrt: TensorRTOptions = group(TensorRTOptions, "TensorRT")
    batch_size: int = option(8, "Of verification, and of calibration inside TensorRT.", low=1)
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
    fp16_baseline: bool = option(
        True, "Where the backend builds FP16, build that beside INT8 and time it, too; it is not kept.",
    )  # fmt: skip
    export: ExportSpec | None = group(
        ExportSpec, "Export of a PyTorch module", optional=True, needs=("source",)
    )
    earlier: tuple[Record, ...] = ()
    loaded: Path | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyRecipe:
    """What to compare, on what, and what to look into; all of the data verifies.

    Attributes:
        reference: float ONNX file, or a PyTorch module.
        engine: what is judged: a plan, or an ONNX file with Q/DQ.
    """

    reference: Path | ModuleSource
    engine: Path
    data: DataRecipe = group(DataRecipe, "Data", file_only=("verify_data",))
    backend: str | Backend = option(
        AUTO, "What opens ENGINE; auto goes by the file.", plugin=BACKEND, takes_objects=True,
        essential=True,
    )  # fmt: skip
    batch_size: int = option(8, "Samples a run, where the network leaves it open.", low=1)
    options: ComparisonOptions = group(ComparisonOptions, "Comparison")
    diagnosis: Diagnosis = group(Diagnosis, "Diagnosis")
    tensorrt: OpenOptions = group(OpenOptions, "TensorRT")
    task: TaskOptions = group(TaskOptions, "Task")
    gate: Gate = group(Gate, "Limits")
    strict: bool = option(False, _TOO_FEW)


@dataclass(frozen=True, kw_only=True)
class BenchRecipe:
    """What to time, and against what; random numbers where no data is named.

    Attributes:
        engine: the file to time.
    """

    engine: Path
    against: Path | None = option(
        None, "Compare with another engine, in turns, or with a baseline of this device.",
        metavar="ENGINE|BASELINE.json", essential=True,
    )  # fmt: skip
    data: DataRecipe = group(DataRecipe, "Data", file_only=(*_JUDGES, "num_images", "random_data"))
    backend: str | Backend = option(
        AUTO, "What opens the engines; auto goes by the file.", plugin=BACKEND, takes_objects=True,
        essential=True,
    )  # fmt: skip
    tensorrt: OpenOptions = group(OpenOptions, "TensorRT")
    batch_sizes: tuple[int, ...] = option(
        (), "One batch size, or several for a sweep.", flag="--batch-size", metavar="N[,N...]",
        separator=",", parse=_batch_sizes, when_absent="what the engine fixes, else 1", essential=True,
    )  # fmt: skip
    measure: MeasureOptions = group(MeasureOptions, "Latency")
    margin_percent: float = option(
        DEFAULT_MARGIN_PERCENT, "Differences below this count as none.", flag="--within",
        unit="percent", essential=True,
    )  # fmt: skip
    save_baseline: Path | None = option(
        None,
        "Keep the latencies for --against on this device; one batch size only.",
        essential=True,
    )
    layer_times: Path | None = option(
        None, "Write what each layer of the engine takes, by the runtime's profiler, as JSON for `diff`.",
        essential=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CalibrationFiles:
    """Where a calibration goes."""

    output: Path = option(MISSING, "Calibration file to write.", short="-o", essential=True)
    cache: Path | None = option(
        None, "Write the same scales as a TensorRT calibration cache.", essential=True
    )
    tensorrt_version: str = option(
        "10.16.1", "In the cache's header; TensorRT skips other versions."
    )
    plot: Path | None = option(
        None, "Draw every tensor's histogram with the thresholds of all methods.", metavar="DIR",
        essential=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CalibrateRecipe:
    """Which network is calibrated, on what.

    Attributes:
        model: float ONNX file.
    """

    model: Path
    data: DataRecipe = group(DataRecipe, "Data", file_only=_JUDGES)
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    batch_size: int = option(
        8, "Matters to entropy-tensorrt alone: no other rule depends on it.", low=1
    )
    all_tensors: bool = option(
        False,
        "Observe every float tensor of the graph as given, as TensorRT 10 does.",
        essential=True,
    )
    shard: str | None = option(
        None,
        "Only part I of N of the data; merge the parts afterwards.",
        metavar="I/N",
        essential=True,
    )
    files: CalibrationFiles = group(CalibrationFiles, "Files", required=True)

    def __post_init__(self) -> None:
        if self.shard is not None and self.calibrate.method == AS_TENSORRT:
            raise OptionError(
                f"{AS_TENSORRT} depends on the order of all batches, so it has no parts to merge; use "
                "entropy, or leave --shard out."
            )


@dataclass(frozen=True, kw_only=True)
class AdviseRecipe:
    """Calibration data to be looked at, and the network that it is for.

    Attributes:
        model: float ONNX file.
    """

    model: Path
    data: DataRecipe = group(DataRecipe, "Data", file_only=_JUDGES)
    method: str | None = option(
        None, "Rule whose thresholds a subset has to give.", flag="--calibrator", metavar="NAME",
        choices=METHOD_NAMES, plugin=CALIBRATOR, when_absent="entropy", essential=True,
    )  # fmt: skip
    within: float = option(
        0.01, "Share to which a subset has to give the thresholds of all, where others are not as good.",
        low=0.0, high=1.0, essential=True,
    )  # fmt: skip
    subset: Path | None = option(
        None, "Write the few samples that suffice: .npz as the network takes them, .txt their names.",
        essential=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvertRecipe:
    """A calibration cache and its network towards Q/DQ; or, without `model`, Q/DQ towards a cache.

    Attributes:
        source: the cache, or the Q/DQ network.
        model: the float network that the cache was made for; None towards a cache.
    """

    source: Path
    model: Path | None = None
    output: Path = option(MISSING, "ONNX file to write.", short="-o", essential=True)
    fp16: bool = option(False, "Towards Q/DQ: what is not INT8 computes in FP16.", essential=True)
    float_patterns: tuple[str, ...] = option(
        (),
        "Towards Q/DQ: keep layers in float. Repeatable.",
        flag="--float",
        metavar="PATTERN",
        essential=True,
    )
    tensorrt_version: str = option(
        "10.16.1", "Towards a cache: the version that will read it.", flag="--tensorrt"
    )


@dataclass(frozen=True, kw_only=True)
class QuantizeRecipe:
    """A network and its ranges.

    Attributes:
        model: float ONNX file.
    """

    model: Path
    calibration: Path | None = option(None, "File from `trtbuild calibrate`.", essential=True)
    output: Path | None = option(None, "ONNX file to write.", short="-o", essential=True)
    form: str = option(
        "tensorrt", "TensorRT's explicit Q/DQ, or what ONNX Runtime runs in integer kernels.",
        choices=("tensorrt", "onnxruntime"), essential=True,
    )  # fmt: skip
    float_patterns: tuple[str, ...] = option(
        (), _FLOAT, flag="--float", metavar="PATTERN", essential=True
    )
    float_groups: tuple[str, ...] = option((), _GROUPS, flag="--float-group", metavar="NAME")
    strict: bool = option(False, _STRICT)
    target: str | None = option(
        None, _TARGET, choices=tuple(TARGETS), when_absent="what is installed"
    )


@dataclass(frozen=True, kw_only=True)
class OptimizeRecipe:
    """A network and the graph passes that run over it.

    Attributes:
        source: ONNX file to read.
        target: ONNX file to write.
    """

    source: Path
    target: Path
    options: OptimizeOptions = group(OptimizeOptions, "Graph passes")
    fixed_weights: bool = option(
        False, "Weights that are also inputs are weights; opset 13 or newer."
    )


@dataclass(frozen=True, kw_only=True)
class CheckRecipe:
    """A network that is shown to TensorRT's parser.

    Attributes:
        model: ONNX file, float or with Q/DQ.
    """

    model: Path
    backend: str = option(
        AUTO, "Whose parser: tensorrt, tensorrt-rtx, or auto, which is TensorRT's where it starts, else that "
        "of TensorRT for RTX.", essential=True,
    )  # fmt: skip
    build: bool = option(
        False, "Build it, too; takes seconds to minutes, and nothing is kept.", essential=True
    )
    tensorrt: TensorRTOptions = group(TensorRTOptions, "TensorRT")


@dataclass(frozen=True, kw_only=True)
class TritonRecipe:
    """An engine, and the Triton model repository that it goes into.

    Attributes:
        engine: its file, or the folder of its build.
    """

    engine: Path
    output: Path = option(MISSING, "Triton's model repository; made if absent.", short="-o")
    name: str | None = option(None, "Name of the model.", when_absent="that of the engine")
    max_batch_size: int | None = option(
        None, "Samples that Triton may join to one run; 0: requests bring the batch themselves.", low=0,
        when_absent="what the plan takes; 8 in ONNX Runtime; 0 where the batch is fixed",
    )  # fmt: skip
    instances: int = option(1, "Instances of the model on each device.", low=1)
    model_version: int = option(1, "Number of the version's folder.", low=1)
    force: bool = option(
        False, "Replace what is there, and export an engine that DO NOT SHIP was said of."
    )


@dataclass(frozen=True, kw_only=True)
class PruneRecipe:
    """A PyTorch module and the channels that go; `output` is for weights and history."""

    source: ModuleSource = group(ModuleSource, "PyTorch module", required=True)
    inputs: tuple[InputSpec, ...] = option(
        (), "[name:]dims[:dtype][:low..high], for example 1x3x224x224. Repeatable.",
        flag="--input", metavar="SPEC", parse=parse_input, write=str,
    )  # fmt: skip
    dynamic: tuple[str, ...] = option(
        (), "batch, or [input:]axis=name,... for other axes. Repeatable.", metavar="AXES"
    )
    prune: PruneSpec | None = group(
        PruneSpec, "Pruning", optional=True, needs=PRUNES,
        otherwise={"ratio": 0.0},
    )  # fmt: skip
    backend: str | Backend = option(
        AUTO, "What times for --prune-latency: tensorrt, onnxruntime, auto, or your own, module:class.",
        plugin=BACKEND, takes_objects=True,
    )  # fmt: skip
    output: Path = option(
        Path("pruned"),
        "Folder for weights and history; made if absent.",
        short="-o",
        essential=True,
    )


@dataclass(frozen=True, kw_only=True)
class QatRecipe:
    """A PyTorch module, what trains it with rounding, and what its thresholds come from."""

    source: ModuleSource = group(ModuleSource, "PyTorch module", required=True)
    inputs: tuple[InputSpec, ...] = option(
        (), "[name:]dims[:dtype][:low..high], for example 1x3x224x224. Repeatable.",
        flag="--input", metavar="SPEC", parse=parse_input, write=str, essential=True,
    )  # fmt: skip
    dynamic: tuple[str, ...] = option(
        (), "batch, or [input:]axis=name,... for other axes. Repeatable.", metavar="AXES"
    )
    train: str = option(
        MISSING, "package.module:function or script.py:function: gets the module, and trains it in place.",
        metavar="FUNCTION", essential=True,
    )  # fmt: skip
    data: DataRecipe = group(DataRecipe, "Data")
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    float_patterns: tuple[str, ...] = option(
        (), _FLOAT, flag="--float", metavar="PATTERN", essential=True
    )
    target: str | None = option(
        None, _TARGET, choices=tuple(TARGETS), when_absent="what is installed"
    )
    batch_size: int = option(8, "Samples a run, where the network leaves it open.", low=1)
    output: Path = option(
        Path("qat"), "Folder for the networks; made if absent.", short="-o", essential=True
    )
