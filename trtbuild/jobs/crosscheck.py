"""Compares the thresholds of two calibrations, and plots the differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibrators import crosscheck
from trtbuild.calibration.thresholds import read_pair, read_thresholds
from trtbuild.errors import InputError, in_one_tree
from trtbuild.jobs.paths import Besides, check_paths, named_inputs
from trtbuild.json_codec import Document
from trtbuild.plots.calibration import histogram_plot, plot_file_name, plot_folder, write_plots

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibrators import Crosscheck
    from calibrators.crosscheck import Comparison
    from trtbuild.calibration.thresholds import Thresholds
    from trtbuild.plots.data import Plot
    from trtbuild.recipes import CrosscheckRecipe

__all__ = ["CrosscheckRecord", "CrosscheckResult", "ThresholdSource", "crosscheck_files"]


@dataclass(frozen=True)
class ThresholdSource:
    """Where thresholds come from: the user's name for it, and its kind."""

    name: str
    kind: str


@dataclass(frozen=True)
class CrosscheckRecord(Document):
    """The thresholds of two calibrations, tensor by tensor.

    Attributes:
        first, second: where the thresholds come from.
        tensors: the thresholds of the tensors that both have.
        only_first, only_second: tensors that only this side has.
        plots: the written plots.
    """

    SCHEMA = "trtbuild.crosscheck"

    first: ThresholdSource
    second: ThresholdSource
    tensors: tuple[Comparison, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    plots: tuple[Path, ...]


@dataclass(frozen=True)
class CrosscheckResult:
    """The result of a comparison.

    Attributes:
        first, second: the thresholds, and where they come from.
        found: the differences, tensor by tensor.
        plots: file name -> plot, for every flagged tensor that has a histogram.
        files: the written plots.
    """

    first: Thresholds
    second: Thresholds
    found: Crosscheck
    plots: Mapping[str, Plot]
    files: tuple[Path, ...]

    @property
    def record(self) -> CrosscheckRecord:
        """The part that programs read."""
        return CrosscheckRecord(
            first=ThresholdSource(self.first.name, self.first.kind),
            second=ThresholdSource(self.second.name, self.second.kind),
            tensors=self.found.comparisons,
            only_first=self.found.only_first,
            only_second=self.found.only_second,
            plots=self.files,
        )


@in_one_tree()
def crosscheck_files(recipe: CrosscheckRecipe, besides: Besides | None = None) -> CrosscheckResult:
    """Compare the recipe's thresholds, and write a plot of every flagged tensor if asked for.

    Args:
        recipe: what to compare.
        besides: other files that the command writes.

    Raises:
        InputError: a file cannot be read, or keeps no histograms to choose from.
        OutputError: a plot cannot be written.
    """
    named = named_inputs(
        the_calibration_A=recipe.first,
        the_calibration_B=recipe.second,
        the_histograms=recipe.histograms,
    )
    check_paths(named, [], besides)
    first, second = read_pair(recipe.first, recipe.second)
    histograms = first.histograms or second.histograms
    if recipe.histograms is not None:
        histograms = read_thresholds(recipe.histograms).histograms
        if not histograms:
            raise InputError(
                f"'{recipe.histograms}' keeps no histograms; --histograms takes what `trtbuild calibrate` "
                "writes."
            )
    found = crosscheck(first.amaxes, second.amaxes, histograms)
    plots: dict[str, Plot] = {
        plot_file_name(number, entry.tensor): histogram_plot(
            entry.tensor,
            histograms[entry.tensor],
            {first.name: entry.first, second.name: entry.second},
        )
        for number, entry in enumerate(found.flagged)
        if entry.tensor in histograms
    }
    files = [] if recipe.plots is None else write_plots(plots, plot_folder(recipe.plots))
    return CrosscheckResult(first, second, found, plots, tuple(files))
