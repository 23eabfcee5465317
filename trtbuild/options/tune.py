"""How far the search for an accuracy budget goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trtbuild.options.fields import option

__all__ = ["FLOAT_PERCENT", "LIMIT_FLOAT_PERCENT", "TuneOptions"]

FLOAT_PERCENT = 10.0
"""Of the work, what a build without a limit keeps in float at most."""

LIMIT_FLOAT_PERCENT = 50.0
"""Of the multiply-accumulates, what a search keeps in float at most to meet a limit."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How far the search goes."""

    num_images: int = option(
        256, "Calibration samples that candidates are compared on.", flag="--search-images", low=1
    )
    num_ranking_images: int = option(
        32, "How many of --search-images rank the layers.", flag="--search-ranking-images", low=1
    )
    num_mean_images: int = option(
        64,
        "How many of --search-images give channel means and ranges.",
        flag="--search-mean-images",
        low=1,
    )
    num_tensors: int = option(
        6, "How many tensors may get a range of their own.", flag="--search-tensors", low=0
    )
    max_float_percent: float | None = option(
        None, "Largest share of the multiply-accumulates that may fall back to float to meet a limit; "
        "without a limit, largest share of the work that may stay in float, 0 for none.",
        flag="--max-float", unit="percent", low=0, high=100,
        when_absent=f"{FLOAT_PERCENT:g}, or {LIMIT_FLOAT_PERCENT:g} to meet a limit",
    )  # fmt: skip
    max_seconds: float | None = option(
        None, "Start no step of the search after this time; the best result so far is used.",
        flag="--search-time", unit="s", low=0, when_absent="no limit",
    )  # fmt: skip
    directory: Path | None = option(
        None, "Folder that keeps the search's results, to continue after an interruption.",
        flag="--search-cache",
    )  # fmt: skip
