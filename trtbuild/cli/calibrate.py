"""``trtbuild calibrate``: ranges as a file; ``trtbuild calibrate merge``: parts put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.option_fields import Given, SectionedCommand, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipe import CalibrateRecipe, CalibrationFiles

if TYPE_CHECKING:
    from trtbuild.jobs.calibrate import CalibrateResult

__all__ = ["command"]

_ALL_METHODS = click.option(
    "--all-methods",
    is_flag=True,
    help="Show what every method would choose, and what it would cost.",
)


class _DefaultsToRun(click.Group):
    """``calibrate MODEL`` is short for ``calibrate run MODEL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("calibrate", cls=_DefaultsToRun)
def command() -> None:
    """Find the range of every tensor that will be INT8.

    `calibrate MODEL --data ...` runs the network (its options: `calibrate run --help`);
    `calibrate merge PART...` puts the parts of a sharded calibration together.
    """


@command.command("run", cls=SectionedCommand)
@click.argument("model", type=click.Path(path_type=Path))
@recipe_options(CalibrateRecipe, file=True)
@_ALL_METHODS
@output_options
def run(*, model: Path, given: Given[CalibrateRecipe], all_methods: bool, out: Output) -> None:
    """Calibrate MODEL on all the data given, and write the ranges and their histograms."""
    recipe = given.make(model=model)
    from trtbuild.jobs.calibrate import calibrate_file

    with out.progress() as progress:
        result = calibrate_file(recipe, progress)
    _say(result, all_methods, out)


@command.command("merge", cls=SectionedCommand)
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@recipe_options(CalibrationFiles)
@_ALL_METHODS
@output_options
def merge(
    *, parts: tuple[Path, ...], given: Given[CalibrationFiles], all_methods: bool, out: Output
) -> None:
    """Put the PARTS of a sharded calibration together; equal to one run, byte for byte."""
    files = given.make()
    from trtbuild.jobs.calibrate import merge_parts

    _say(merge_parts(parts, files), all_methods, out)


def _say(result: CalibrateResult, all_methods: bool, out: Output) -> None:
    from trtbuild.cli.calibrate_summary import (
        agreement_lines,
        all_choices,
        finite,
        method_table,
        range_table,
    )

    calibration, agreement = result.calibration, result.until_stable
    out.say(method_table(calibration) if all_methods else range_table(calibration, result.spread))
    if agreement is not None:
        out.say(agreement_lines(agreement))
    out.say(*(f"wrote {file}" for file in result.files[:2]))
    out.result(
        {
            "files": [str(file) for file in result.files],
            "method": calibration.method,
            "num_samples": int(calibration.provenance["num_samples"]),
            "amax": {name: finite(given.amax) for name, given in calibration.ranges.items()},
            "spread": dict(result.spread),
            "until_stable": agreement,
            "methods": all_choices(calibration) if all_methods else None,
        }
    )
