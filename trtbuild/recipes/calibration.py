"""Recipes of the jobs that calibrate, or examine calibration data."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from trtbuild.errors import OptionError
from trtbuild.options.calibrate import AS_TENSORRT, METHOD_NAMES, CalibrateOptions, share
from trtbuild.options.data import DataRecipe
from trtbuild.options.fields import group, option
from trtbuild.plugins import CALIBRATOR
from trtbuild.recipes.texts import JUDGES

__all__ = ["AdviseRecipe", "CalibrateRecipe", "CalibrationFiles"]


@dataclass(frozen=True, kw_only=True)
class CalibrationFiles:
    """Where a calibration is written."""

    output: Path = option(MISSING, "Calibration file to write.", short="-o", essential=True)
    cache: Path | None = option(
        None, "Write the same scales as a TensorRT calibration cache.", essential=True
    )
    tensorrt_version: str = option(
        "10.16.1", "TensorRT version in the cache's header; TensorRT ignores other versions."
    )
    plot: Path | None = option(
        None, "Draw every tensor's histogram with the thresholds of all methods.", metavar="DIR",
        essential=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CalibrateRecipe:
    """Which network to calibrate, and on which data.

    Attributes:
        model: float ONNX file.
    """

    model: Path
    data: DataRecipe = group(DataRecipe, "Data", file_only=JUDGES)
    calibrate: CalibrateOptions = group(CalibrateOptions, "Calibration")
    batch_size: int = option(8, "Batch size; only entropy-tensorrt depends on it.", low=1)
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
        if self.shard is not None and self.calibrate.until_stable is not None:
            raise OptionError(
                "--until-stable and --shard exclude each other: a part does not know whether the whole is "
                "stable."
            )
        if self.shard is not None and self.calibrate.method == AS_TENSORRT:
            raise OptionError(
                f"{AS_TENSORRT} depends on the order of all batches, so it has no parts to merge; use "
                "entropy, or leave --shard out."
            )


@dataclass(frozen=True, kw_only=True)
class AdviseRecipe:
    """Calibration data to examine, and the network that it is for.

    Attributes:
        model: float ONNX file.
    """

    model: Path
    data: DataRecipe = group(DataRecipe, "Data", file_only=JUDGES)
    method: str | None = option(
        None, "Rule whose thresholds a subset has to reproduce.", flag="--calibrator", metavar="NAME",
        choices=METHOD_NAMES, plugin=CALIBRATOR, when_absent="entropy", essential=True,
    )  # fmt: skip
    within: float = option(
        0.01, "Largest relative difference between thresholds of a subset and of all samples, such as 1%; "
              "those that differ more must be as good to 0.5 dB.",
        metavar="SHARE", parse=share, low=0.0, high=0.5, essential=True,
    )  # fmt: skip
    subset: Path | None = option(
        None, "Write the few samples that suffice: .npz as the network takes them, .txt their names.",
        essential=True,
    )  # fmt: skip
