"""``trtbuild prune``: removes channels, and saves the smaller module for fine-tuning."""

from __future__ import annotations

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import PruneRecipe

__all__ = ["command"]


@click.command(
    "prune",
    cls=SectionedCommand,
    examples=(
        (
            "prune nets:build --weights best.pt --input 1x3x32x32 --prune 0.3 -o pruned",
            "30 % of the channels",
        ),
        (
            "prune nets:build --weights best.pt --input 1x3x32x32 --prune-macs 0.5",
            "half of the products",
        ),
        (
            "prune nets:build --input 1x3x32x32 --prune 0.5 --prune-scope global",
            "shares chosen over all layers",
        ),
        ("export nets:build --weights pruned --input 1x3x32x32 -o small.onnx", "what comes next"),
    ),
)
@click.argument("target")
@click.option(
    "--list-groups", is_flag=True, help="Show which layers are coupled, and remove nothing."
)
@recipe_options(PruneRecipe, file=True)
@output_options
def command(*, target: str, list_groups: bool, given: Given[PruneRecipe], out: Output) -> None:
    """Remove channels of TARGET (package.module:factory) through whole coupled groups.

    The folder that is written loads everywhere as --weights, without pickle. Without fine-tuning
    the accuracy of a network that lost half of its channels is near chance.
    """
    recipe = given.make(source={"target": target})
    from trtbuild.jobs import prune as job
    from trtbuild.report.prune import groups_report, prune_report

    if list_groups:
        out.show(groups_report(target, job.channel_groups(recipe)))
    else:
        out.show(prune_report(target, job.prune(recipe)))
