"""Compares the thresholds of two calibrations, and plots the differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calibrators import crosscheck
from trtbuild.calibration.thresholds import read_pair, read_thresholds
from trtbuild.errors import InputError, in_one_tree
from trtbuild.jobs.paths import Besides, check_paths, named_inputs
from trtbuild.json_codec import encode
from trtbuild.plots.calibration import histogram_plot, plot_file_name, plot_folder, write_plots

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibrators import Crosscheck
    from trtbuild.calibration.thresholds import Thresholds
    from trtbuild.plots.data import Plot
    from trtbuild.recipes import CrosscheckRecipe

__all__ = ["CrosscheckResult", "crosscheck_files"]

SCHEMA = "trtbuild.crosscheck"
VERSION = 1


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

    def to_json(self) -> dict[str, Any]:
        """Return JSON types, with the schema's name and version."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "first": {"name": self.first.name, "kind": self.first.kind},
            "second": {"name": self.second.name, "kind": self.second.kind},
            "tensors": [
                {**encode(entry), "ratio": encode(entry.ratio), "flagged": entry.flagged}
                for entry in self.found.comparisons
            ],
            "only_first": list(self.found.only_first),
            "only_second": list(self.found.only_second),
            "plots": encode(self.files),
        }


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
