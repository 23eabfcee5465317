"""Recipes of the jobs that compare two things: calibrations, caches, engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trtbuild.options.calibrate import share
from trtbuild.options.fields import group, option
from trtbuild.options.tensorrt import OpenOptions

__all__ = ["CacheDiffRecipe", "CrosscheckRecipe", "DiffRecipe"]


@dataclass(frozen=True, kw_only=True)
class CrosscheckRecipe:
    """Two sets of thresholds to compare.

    Attributes:
        first: a calibration file, a TensorRT calibration cache, or a table of ONNX Runtime.
        second: another, or the name of a method that chooses thresholds from the histograms of `first`.
    """

    first: str
    second: str
    histograms: Path | None = option(
        None, "Calibration file whose histograms tell what each choice costs."
    )
    plots: Path | None = option(None, "Folder for an SVG of every flagged tensor.", flag="--plot")


@dataclass(frozen=True, kw_only=True)
class CacheDiffRecipe:
    """Two TensorRT calibration caches to compare."""

    first: Path
    second: Path
    tolerance: float = option(
        0.0, "Relative difference up to which scales are equal, such as 1%.",
        metavar="SHARE", parse=share, low=0.0, high=0.99,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DiffRecipe:
    """Two engines or Q/DQ networks of one model to compare.

    Attributes:
        first, second: each a folder of a build, its manifest, an ONNX network, a plan, or an engine's layers.
    """

    first: Path
    second: Path
    first_times: Path | None = option(
        None, "Times of A's layers, by `bench --layer-times` or trtexec --exportProfile.",
        flag="--times-a", essential=True,
    )  # fmt: skip
    second_times: Path | None = option(
        None, "Times of B's layers.", flag="--times-b", essential=True
    )
    tolerance: float = option(
        0.0, "Relative difference up to which ranges are equal, such as 1%.",
        metavar="SHARE", parse=share, low=0.0, high=0.99, essential=True,
    )  # fmt: skip
    tensorrt: OpenOptions = group(OpenOptions, "TensorRT")
