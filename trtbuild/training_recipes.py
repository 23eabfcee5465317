"""Recipes of the commands that let the user's own function train a module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trtbuild.backends import AUTO
from trtbuild.backends.base import Backend  # noqa: TC001  options are read off the types
from trtbuild.options.calibrate import CalibrateOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.options.fields import group, option
from trtbuild.options.measure import MeasureOptions
from trtbuild.options.training import Allowance, TrainOptions
from trtbuild.plugins import BACKEND
from trtbuild.pytorch.spec import PRUNES, InputSpec, ModuleSource, PruneSpec, parse_input
from trtbuild.target import TARGETS

__all__ = ["CompressRecipe", "TuneRecipe"]

_INPUT = "[name:]dims[:dtype][:low..high], for example 1x3x224x224. Repeatable."
_AXES = "batch, or [input:]axis=name,... for other axes. Repeatable."
_FRESH = "Begin anew: an unfinished run in the folder is not continued."


@dataclass(frozen=True, kw_only=True)
class TuneRecipe:
    """A PyTorch module and the function that trains it."""

    source: ModuleSource = group(ModuleSource, "PyTorch module", required=True)
    inputs: tuple[InputSpec, ...] = option(
        (), _INPUT, flag="--input", metavar="SPEC", parse=parse_input, write=str, essential=True
    )
    dynamic: tuple[str, ...] = option((), _AXES, metavar="AXES", essential=True)
    training: TrainOptions = group(TrainOptions, "Training", required=True)
    teacher: Path | None = option(
        None, "Checkpoint of the dense module: the function gets that module, too, as teacher.",
        metavar="PATH", essential=True,
    )  # fmt: skip
    allowance: Allowance = group(Allowance, "Limits")
    fresh: bool = option(False, _FRESH, essential=True)
    output: Path = option(
        Path("tuned"), "Folder for the run; made if absent.", short="-o", essential=True
    )


@dataclass(frozen=True, kw_only=True)
class CompressRecipe:
    """A PyTorch module, what trains and judges it, how small it shall become, and what it may lose."""

    source: ModuleSource = group(ModuleSource, "PyTorch module", required=True)
    inputs: tuple[InputSpec, ...] = option(
        (), _INPUT, flag="--input", metavar="SPEC", parse=parse_input, write=str, essential=True
    )
    dynamic: tuple[str, ...] = option((), _AXES, metavar="AXES", essential=True)
    training: TrainOptions = group(TrainOptions, "Training", required=True)
    teacher: bool = option(
        False,
        "The function that trains gets the module as loaded, too, as teacher.",
        essential=True,
    )
    allowance: Allowance = group(Allowance, "Limits")
    prune: PruneSpec | None = group(
        PruneSpec, "Pruning", optional=True, needs=PRUNES, otherwise={"ratio": 0.0}
    )
    sparsity: str | None = option(
        None, "Make the eligible layers 2:4 sparse at the end.", choices=("2:4",), essential=True
    )
    int8: bool = option(True, "Build in INT8 at the end.", essential=True)
    data: DataRecipe = group(DataRecipe, "Data")
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    effort: Effort = option(
        Effort.NORMAL, "How much is tried to choose ranges, where neither a rule nor a file is named.",
        essential=True,
    )  # fmt: skip
    float_patterns: tuple[str, ...] = option(
        (), "Keep groups of Q/DQ in float: node name, op type, or glob. Repeatable.",
        flag="--float", metavar="PATTERN",
    )  # fmt: skip
    target: str | None = option(
        None, "What Q/DQ are placed for: what it runs in float, or cheaper in float, stays float.",
        choices=tuple(TARGETS), when_absent="that of the backend",
    )  # fmt: skip
    backend: str | Backend = option(
        AUTO, "What builds and times: tensorrt, tensorrt-rtx, onnxruntime, auto, or your own, module:class.",
        plugin=BACKEND, takes_objects=True, essential=True,
    )  # fmt: skip
    batch_size: int = option(8, "Of verification, and of calibration inside TensorRT.", low=1)
    latency: MeasureOptions | None = group(
        MeasureOptions, "Latency", switch="--latency", essential=True,
        help="Measure the latency of every tuned module and engine, at the batch of --input.",
        otherwise={"duration_ms": 1000.0},
    )  # fmt: skip
    fresh: bool = option(False, _FRESH, essential=True)
    output: Path = option(
        Path("compressed"), "Folder for the run; made if absent.", short="-o", essential=True
    )
