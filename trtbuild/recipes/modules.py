"""Recipes of the jobs that start from a PyTorch module: prune, train, train with rounding, compress."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from trtbuild.backends import AUTO
from trtbuild.backends.base import Backend
from trtbuild.options.calibrate import CalibrateOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.options.fields import group, option
from trtbuild.options.measure import MeasureOptions
from trtbuild.options.training import Allowance, TrainOptions
from trtbuild.plugins import BACKEND
from trtbuild.pytorch.spec import PRUNES, InputSpec, ModuleSource, PruneSpec, parse_input
from trtbuild.recipes.texts import (
    AXES,
    BATCH,
    EFFORT,
    FLOAT,
    FRESH,
    INPUT,
    RUN_FOLDER,
    SAMPLES_A_RUN,
    TARGET,
)
from trtbuild.target import TARGETS

__all__ = ["CompressRecipe", "PruneRecipe", "QatRecipe", "TuneRecipe"]


@dataclass(frozen=True, kw_only=True)
class _ModuleRecipe:
    """A PyTorch module and its inputs."""

    source: ModuleSource = group(ModuleSource, "PyTorch module", required=True)
    inputs: tuple[InputSpec, ...] = option(
        (), INPUT, flag="--input", metavar="SPEC", parse=parse_input, write=str, essential=True
    )
    dynamic: tuple[str, ...] = option((), AXES, metavar="AXES", essential=True)


@dataclass(frozen=True, kw_only=True)
class PruneRecipe(_ModuleRecipe):
    """A PyTorch module and how to prune it; `output` is for weights and history."""

    prune: PruneSpec | None = group(
        PruneSpec, "Pruning", optional=True, needs=PRUNES,
        otherwise={"ratio": 0.0},
    )  # fmt: skip
    backend: str | Backend = option(
        AUTO, "Backend that measures latency for --prune-latency: tensorrt, onnxruntime, auto, or your "
              "own, module:class.",
        plugin=BACKEND, takes_objects=True,
    )  # fmt: skip
    output: Path = option(
        Path("pruned"),
        "Folder for weights and history; made if absent.",
        short="-o",
        essential=True,
    )


@dataclass(frozen=True, kw_only=True)
class QatRecipe(_ModuleRecipe):
    """A PyTorch module, the function that trains it with rounding, and the data for its thresholds."""

    train: str = option(
        MISSING, "package.module:function or script.py:function: gets the module, and trains it in place.",
        metavar="FUNCTION", essential=True,
    )  # fmt: skip
    data: DataRecipe = group(DataRecipe, "Data")
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    float_patterns: tuple[str, ...] = option(
        (), FLOAT, flag="--float", metavar="PATTERN", essential=True
    )
    target: str | None = option(
        None, TARGET, choices=tuple(TARGETS), when_absent="what is installed"
    )
    batch_size: int = option(8, SAMPLES_A_RUN, low=1)
    output: Path = option(
        Path("qat"), "Folder for the networks; made if absent.", short="-o", essential=True
    )


@dataclass(frozen=True, kw_only=True)
class TuneRecipe(_ModuleRecipe):
    """A PyTorch module and the function that trains it."""

    training: TrainOptions = group(TrainOptions, "Training", required=True)
    teacher: Path | None = option(
        None, "Checkpoint of the dense module: the function gets that module, too, as teacher.",
        metavar="PATH", essential=True,
    )  # fmt: skip
    allowance: Allowance = group(Allowance, "Limits")
    fresh: bool = option(False, FRESH, essential=True)
    output: Path = option(Path("tuned"), RUN_FOLDER, short="-o", essential=True)


@dataclass(frozen=True, kw_only=True)
class CompressRecipe(_ModuleRecipe):
    """A PyTorch module, the functions that train and judge it, how small to make it, and its limits."""

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
    restore: bool = option(
        True, "After each cut, before training, fit the weights of the remaining layers to their former "
              "outputs, by least squares on samples of --data.",
    )  # fmt: skip
    sparsity: str | None = option(
        None, "Make the eligible layers 2:4 sparse at the end.", choices=("2:4",), essential=True
    )
    int8: bool = option(True, "Build in INT8 at the end.", essential=True)
    data: DataRecipe = group(DataRecipe, "Data")
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    effort: Effort = option(
        Effort.NORMAL,
        EFFORT,
        essential=True,
    )  # fmt: skip
    float_patterns: tuple[str, ...] = option(
        (), FLOAT,
        flag="--float", metavar="PATTERN",
    )  # fmt: skip
    target: str | None = option(
        None, TARGET,
        choices=tuple(TARGETS), when_absent="that of the backend",
    )  # fmt: skip
    backend: str | Backend = option(
        AUTO, "Backend that builds and times: tensorrt, tensorrt-rtx, onnxruntime, auto, or your own, "
              "module:class.",
        plugin=BACKEND, takes_objects=True, essential=True,
    )  # fmt: skip
    batch_size: int = option(8, BATCH, low=1)
    latency: MeasureOptions | None = group(
        MeasureOptions, "Latency", switch="--latency", essential=True,
        help="Measure the latency of every tuned module and engine, at the batch of --input.",
        otherwise={"duration_ms": 1000.0},
    )  # fmt: skip
    fresh: bool = option(False, FRESH, essential=True)
    output: Path = option(Path("compressed"), RUN_FOLDER, short="-o", essential=True)
