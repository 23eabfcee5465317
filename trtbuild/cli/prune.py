"""``trtbuild prune``: channels are removed, and the smaller module is saved for fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.option_fields import Given, SectionedCommand, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipe import PruneRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from trtbuild.pytorch.prune import PruneGroup, PruneReport

__all__ = ["command"]


@click.command("prune", cls=SectionedCommand)
@click.argument("target")
@click.option(
    "--list-groups", is_flag=True, help="Show what is coupled with what, and cut nothing."
)
@recipe_options(PruneRecipe, file=True)
@output_options
def command(*, target: str, list_groups: bool, given: Given[PruneRecipe], out: Output) -> int:
    """Remove channels of TARGET (package.module:factory) through whole coupled groups.

    The folder that is written loads everywhere as --weights, without pickle. Without fine-tuning
    the accuracy of a network that lost half of its channels is near chance.
    """
    recipe = given.make(source={"target": target})
    from trtbuild.jobs import prune as job

    if list_groups:
        groups = job.channel_groups(recipe)
        out.say(*(_group_text(group) for group in groups))
        out.result([_group_json(group) for group in groups])
        return 0
    result = job.prune(recipe)
    out.say(*_summary(result.report, recipe.output))
    out.result(
        {
            "folder": str(recipe.output),
            "warnings": list(result.warnings),
            **result.report.as_dict(),
        }
    )
    return 0


def _group_text(group: PruneGroup) -> str:
    lines = [
        f"{group.root}: {group.width} channels" + (f", kept: {group.kept}" if group.kept else "")
    ]
    for member in group.members:
        cause = f", because of {member.because}" if member.because else ""
        lines.append(f"  {member.path}: {member.num_channels} {member.side}put channels{cause}")
    return "\n".join(lines).replace("[", "\\[")


def _group_json(group: PruneGroup) -> dict[str, Any]:
    return {
        "root": group.root,
        "width": group.width,
        "kept": group.kept,
        "members": [
            {"path": m.path, "side": m.side, "because": m.because, "channels": m.num_channels}
            for m in group.members
        ],
    }


def _summary(report: PruneReport, folder: Path) -> list[RenderableType]:
    from rich.table import Table

    table = Table("layer", "channels", "", box=None)
    for width in report.widths:
        table.add_row(
            width.path, f"{width.before} -> {width.after}", width.kept.replace("[", "\\[")
        )
    before, after = report.before, report.after
    achieved = f"asked for {report.asked:.0%} of the channels, {report.achieved:.0%} are gone"
    lines = [
        f"{achieved}; widths are multiples of {report.round_to}",
        f"parameters {before.parameters:,} -> {after.parameters:,}",
    ]
    if before.macs and after.macs is not None:
        lines.append(
            f"MACs {before.macs:,} -> {after.macs:,} ({after.macs / before.macs:.2f} of before)"
        )
    notes = [f"[yellow]warning: {note}[/yellow]" for note in report.notes]
    return [table, *lines, *notes, f"saved in {folder}; use it as --weights {folder}"]
