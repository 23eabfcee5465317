"""``trtbuild crosscheck``: compares two calibrations."""

from __future__ import annotations

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.recipes import CrosscheckRecipe

__all__ = ["command"]


@click.command(
    "crosscheck",
    cls=SectionedCommand,
    examples=(
        ("crosscheck model.calibration.json model.cache", "our thresholds against TensorRT's"),
        ("crosscheck model.calibration.json mse", "against another rule, from the same histograms"),
        (
            "crosscheck a.cache b.cache --histograms model.calibration.json",
            "what each choice costs",
        ),
    ),
)
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
@recipe_options(CrosscheckRecipe)
@click.option("--all", "show_all", is_flag=True, help="List every tensor, not only flagged ones.")
@click.option(
    "--strict",
    is_flag=True,
    help="Exit code 1 when a tensor is flagged as far: more than 25 % apart; or when no tensor is in both.",
)
@report_options
@output_options
def command(
    *,
    first: str,
    second: str,
    given: Given[CrosscheckRecipe],
    show_all: bool,
    strict: bool,
    files: ReportFiles,
    out: Output,
) -> int:
    """Compare the thresholds of A and B, tensor by tensor.

    Each is a calibration file, a TensorRT calibration cache, or a table of ONNX Runtime; B may also
    be the name of a method, which chooses anew from A's histograms.
    """
    recipe = given.make(first=first, second=second)
    from trtbuild.jobs.crosscheck import crosscheck_files
    from trtbuild.report.crosscheck import crosscheck_report

    result = crosscheck_files(recipe, files.besides())
    report = crosscheck_report(result, has_all_tensors=show_all, is_strict=strict)
    out.show(report)
    files.write(report)
    return 0 if report.passed else 1
