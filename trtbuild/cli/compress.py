"""``trtbuild compress``: makes a PyTorch module smaller in rounds with training, and builds it in INT8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.recipes import CompressRecipe

if TYPE_CHECKING:
    from trtbuild.jobs.compress import CompressOutcome

__all__ = ["command", "show_outcome"]

_LINE = "compress nets:build --input 1x3x32x32 --data calib.npz --evaluate nets:evaluate"


@click.command(
    "compress",
    cls=SectionedCommand,
    examples=(
        (
            f"{_LINE} --train nets:train --prune-macs 0.5 --prune-steps 3 --max-drop 1",
            "half of the multiply-accumulates in three rounds, and INT8, for at most one point",
        ),
        (
            f"{_LINE} --train nets:one_epoch --epochs 20 --teacher --prune-latency 0.6",
            "train(module, epoch, teacher) is one epoch, and learns from the module as loaded",
        ),
        (
            f"{_LINE} --train nets:train --prune 0.3 --report compress.html",
            "remove 30 % of the channels, and write an HTML report",
        ),
    ),
)
@click.argument("module")
@recipe_options(CompressRecipe, file=True)
@report_options
@output_options
def command(*, module: str, given: Given[CompressRecipe], files: ReportFiles, out: Output) -> int:
    """Make MODULE (package.module:factory) smaller within limits, and build it in INT8.

    Channels are removed in rounds, the function of --train trains what is left after each, and the function
    of --evaluate says how good the module as loaded, every round and the engine are. Every limit is relative
    to the module as loaded. The same command continues a run that was interrupted.
    """
    recipe = given.make(source={"target": module})
    from trtbuild.jobs import compress as job

    with out.progress() as progress:
        outcome = job.compress(recipe, progress, files.besides(*given.files))
    return show_outcome(outcome, out, files)


def show_outcome(outcome: CompressOutcome, out: Output, files: ReportFiles) -> int:
    """Show the result of a run, write the files asked for, and return the exit code."""
    from trtbuild.report.compress import compress_report

    report = compress_report(outcome)
    out.show(report)
    files.write(report)
    return 0 if outcome.passed else 1
