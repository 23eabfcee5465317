"""How far the search for an accuracy budget goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trtbuild.options.fields import option

__all__ = ["TuneOptions"]


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How far the search goes."""

    num_images: int = option(
        256, "Calibration samples that candidates are compared on.", flag="--search-images", low=1
    )
    num_ranking_images: int = option(
        32, "How many of them serve to rank layers.", flag="--search-ranking-images", low=1
    )
    num_mean_images: int = option(
        64, "How many give channel means and ranges.", flag="--search-mean-images", low=1
    )
    num_tensors: int = option(
        6, "How many tensors may get a range of their own.", flag="--search-tensors", low=0
    )
    max_float_percent: float = option(
        50.0,
        "Most of the multiply-accumulates that may fall back to float; a budget that needs more is not met.",
        flag="--max-float", unit="percent", low=0, high=100,
    )  # fmt: skip
    max_seconds: float | None = option(
        None, "No step of the search begins later; what it has found by then is taken.",
        flag="--search-time", unit="s", low=0, when_absent="no limit",
    )  # fmt: skip
    directory: Path | None = option(
        None, "Folder that keeps the search's results, to go on after an interruption.",
        flag="--search-cache",
    )  # fmt: skip
