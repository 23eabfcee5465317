"""``trtbuild tune``: lets the user's function train a PyTorch module, and saves it."""

from __future__ import annotations

import click

from trtbuild.cli.compress import show_outcome
from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.recipes import TuneRecipe

__all__ = ["command"]

_LINE = "tune nets:build --weights pruned --input 1x3x32x32"


@click.command(
    "tune",
    cls=SectionedCommand,
    examples=(
        (f"{_LINE} --train nets:train -o tuned", "what `trtbuild prune` wrote, trained"),
        (
            f"{_LINE} --train nets:one --epochs 20 --teacher best.pt -o tuned",
            "20 epochs that learn from the dense module",
        ),
        (
            "engine nets:build --weights tuned/module --input 1x3x32x32 --int8 --data calib.npz",
            "what comes next",
        ),
    ),
)
@click.argument("module")
@recipe_options(TuneRecipe, file=True)
@report_options
@output_options
def command(*, module: str, given: Given[TuneRecipe], files: ReportFiles, out: Output) -> int:
    """Train MODULE (package.module:factory) with the function of --train, and save it.

    MODULE may be pruned already (--weights names what `trtbuild prune` wrote). With --epochs, the same
    command continues an interrupted run after its last epoch.
    """
    recipe = given.make(source={"target": module})
    from trtbuild.jobs import compress as job

    with out.progress() as progress:
        outcome = job.tune(recipe, progress, files.besides(*given.files))
    return show_outcome(outcome, out, files)
