"""``trtbuild calibrate``: writes ranges to a file; ``trtbuild calibrate merge``: merges parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.help import HELP_NAMES, ListingGroup, SectionedCommand, shows_all
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, page_option
from trtbuild.recipes import CalibrateRecipe, CalibrationFiles
from trtbuild.wording import counted

if TYPE_CHECKING:
    from trtbuild.jobs.calibrate import CalibrateResult

__all__ = ["command"]

_ALL_METHODS = click.option(
    "--all-methods",
    is_flag=True,
    help="Show what every method would choose, and what it would cost.",
)


class _DefaultsToRun(ListingGroup):
    """``calibrate MODEL`` is short for ``calibrate run MODEL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front of what is no command."""
        if args and args[0] not in (*self.commands, *HELP_NAMES, "--help-all"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage of both forms."""
        del ctx
        return ["MODEL [OPTIONS] | merge PARTS... [OPTIONS]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of a run, then the other command; ``--help-all`` writes the run's help anyway."""
        if shows_all(ctx):
            super().format_options(ctx, formatter)
            return
        run = self.commands["run"]
        with click.Context(run, info_name=ctx.info_name, parent=ctx) as inner:
            run.format_options(inner, formatter)
        self.format_commands(ctx, formatter)


_EXAMPLES = (
    ("calibrate model.onnx --data images/ --preprocess imagenet.toml -o model.json", "on images"),
    ("calibrate model.onnx --data calib.npz --calibrator mse -o model.json", "by another rule"),
    ("calibrate model.onnx --data calib.npz --shard 1/4 -o part1.json", "one part of four"),
)
_MERGE = ("calibrate merge part*.json -o model.json", "all parts")
_MERGES = (
    _MERGE,
    ("calibrate merge part1.json part2.json --partial -o half.json", "some, to be merged further"),
    (
        "calibrate merge part*.json -o model.json --cache model.cache",
        "with a calibration cache for TensorRT 10",
    ),
)


@click.group("calibrate", cls=_DefaultsToRun, examples=(*_EXAMPLES, _MERGE))
def command() -> None:
    """Find the range of every tensor that will be INT8.

    `calibrate MODEL --data ...` runs the network, with the options below (and is short for
    `calibrate run MODEL`); `calibrate merge PART...` puts the parts of a sharded calibration together.
    """


@command.command("run", cls=SectionedCommand, examples=_EXAMPLES)
@click.argument("model", type=click.Path(path_type=Path))
@recipe_options(CalibrateRecipe, file=True)
@_ALL_METHODS
@page_option
@output_options
def run(
    *,
    model: Path,
    given: Given[CalibrateRecipe],
    all_methods: bool,
    files: ReportFiles,
    out: Output,
) -> None:
    """Calibrate MODEL on all the data given, and write the ranges and their histograms."""
    recipe = given.make(model=model)
    from trtbuild.model.collecting import all_made_stays
    from trtbuild.runtime.isolated import started_ahead

    with started_ahead(None if recipe.all_tensors else model):
        with all_made_stays():
            from trtbuild.jobs.calibrate import calibrate_file

        with out.progress() as progress:
            result = calibrate_file(recipe, progress, files.besides(*given.files))
    _show(model.name, result, all_methods, files, out)


@command.command("merge", cls=SectionedCommand, examples=_MERGES)
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@recipe_options(CalibrationFiles)
@click.option(
    "--partial", is_flag=True, help="Some parts may be missing; the result is then a part itself."
)
@_ALL_METHODS
@page_option
@output_options
def merge(
    *,
    parts: tuple[Path, ...],
    given: Given[CalibrationFiles],
    partial: bool,
    all_methods: bool,
    files: ReportFiles,
    out: Output,
) -> None:
    """Put the PARTS of a sharded calibration together; equal to one run, byte for byte."""
    wanted = given.make()
    from trtbuild.jobs.calibrate import merge_parts

    result = merge_parts(parts, wanted, files.besides(), partial=partial)
    _show(counted(len(parts), "part"), result, all_methods, files, out)


def _show(
    title: str, result: CalibrateResult, all_methods: bool, files: ReportFiles, out: Output
) -> None:
    if out.says_nothing and files.html is None:
        return
    from trtbuild.report.calibration import calibration_report

    plots = {}
    if files.html is not None:
        from trtbuild.plots.calibration import calibration_plots

        plots = calibration_plots(result.calibration)
    report = calibration_report(title, result, plots, has_all_methods=all_methods)
    out.show(report)
    files.write(report)
