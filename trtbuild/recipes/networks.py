"""Recipes of the jobs that read, change, check or export ONNX networks and engines."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from trtbuild.backends import AUTO
from trtbuild.options.fields import group, option
from trtbuild.options.optimize import OptimizeOptions
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.recipes.texts import FLOAT, GROUPS, STRICT, TARGET, TO_WRITE
from trtbuild.target import TARGETS

__all__ = ["CheckRecipe", "ConvertRecipe", "OptimizeRecipe", "QuantizeRecipe", "TritonRecipe"]


@dataclass(frozen=True, kw_only=True)
class ConvertRecipe:
    """A calibration cache and its network to be converted to Q/DQ; or, without `model`, Q/DQ to a cache.

    Attributes:
        source: the cache, or the Q/DQ network.
        model: the float network that the cache was made for; None to make a cache.
    """

    source: Path
    model: Path | None = None
    output: Path = option(MISSING, TO_WRITE, short="-o", essential=True)
    fp16: bool = option(
        False, "Cache to Q/DQ: layers that are not INT8 compute in FP16.", essential=True
    )
    float_patterns: tuple[str, ...] = option(
        (),
        "Cache to Q/DQ: keep layers in float. Repeatable.",
        flag="--float",
        metavar="PATTERN",
        essential=True,
    )
    tensorrt_version: str = option(
        "10.16.1", "Q/DQ to cache: the TensorRT version that will read it.", flag="--tensorrt"
    )


@dataclass(frozen=True, kw_only=True)
class QuantizeRecipe:
    """A network and its ranges.

    Attributes:
        model: float ONNX file.
    """

    model: Path
    calibration: Path | None = option(None, "File from `trtbuild calibrate`.", essential=True)
    output: Path | None = option(None, TO_WRITE, short="-o", essential=True)
    form: str = option(
        "tensorrt", "TensorRT's explicit Q/DQ, or what ONNX Runtime runs in integer kernels.",
        choices=("tensorrt", "onnxruntime"), essential=True,
    )  # fmt: skip
    float_patterns: tuple[str, ...] = option(
        (), FLOAT, flag="--float", metavar="PATTERN", essential=True
    )
    float_groups: tuple[str, ...] = option((), GROUPS, flag="--float-group", metavar="NAME")
    strict: bool = option(False, STRICT)
    target: str | None = option(
        None, TARGET, choices=tuple(TARGETS), when_absent="what is installed"
    )


@dataclass(frozen=True, kw_only=True)
class OptimizeRecipe:
    """A network and the graph passes to run on it.

    Attributes:
        source: ONNX file to read.
        target: ONNX file to write.
    """

    source: Path
    target: Path
    options: OptimizeOptions = group(OptimizeOptions, "Graph passes")
    fixed_weights: bool = option(
        False, "Treat initializers that are also inputs as constants; writes opset 13 or newer."
    )


@dataclass(frozen=True, kw_only=True)
class CheckRecipe:
    """A network to give to TensorRT's parser.

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
    """An engine, and the Triton model repository to put it into.

    Attributes:
        engine: its file, or the folder of its build.
    """

    engine: Path
    output: Path = option(MISSING, "Triton's model repository; made if absent.", short="-o")
    name: str | None = option(None, "Name of the model.", when_absent="that of the engine")
    max_batch_size: int | None = option(
        None, "Most samples that Triton may join in one batch; 0: requests contain the batch axis.", low=0,
        when_absent="what the plan takes; 8 in ONNX Runtime; 0 where the batch is fixed",
    )  # fmt: skip
    instances: int = option(1, "Instances of the model on each device.", low=1)
    model_version: int = option(1, "Number of the version's folder.", low=1)
    force: bool = option(
        False, "Replace what is there, and export an engine even if its verdict is DO NOT SHIP."
    )
