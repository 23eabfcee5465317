"""``trtbuild prune``: channels are removed, and the smaller module is saved for fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import PruneRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.pytorch.prune import PruneGroup, PruneReport
    from trtbuild.report.model import Block

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
    from trtbuild.report.model import Line, Report, Section

    if list_groups:
        groups = job.channel_groups(recipe)
        lines = tuple(Line(line) for group in groups for line in _group_lines(group))
        data = [_group_json(group) for group in groups]
        out.show(Report(title=f"coupled layers of {target}", notes=lines, data=data))
        return 0
    result = job.prune(recipe)
    out.show(
        Report(
            title=f"{target}, pruned",
            sections=(Section("Layers", tuple(_blocks(result.report, recipe.output))),),
            data={
                "folder": recipe.output,
                "warnings": result.warnings,
                **result.report.as_dict(),
            },
        )
    )
    return 0


def _group_lines(group: PruneGroup) -> Iterator[str]:
    kept = f", kept: {group.kept}" if group.kept else ""
    yield f"{group.root}: {group.width} channels{kept}"
    for member in group.members:
        cause = f", because of {member.because}" if member.because else ""
        yield f"  {member.path}: {member.num_channels} {member.side}put channels{cause}"


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


def _blocks(report: PruneReport, folder: Path) -> Iterator[Block]:
    from trtbuild.report.model import Line, Table, Tone, names

    yield Table(
        names("layer", "channels", "kept because"),
        tuple((one.path, f"{one.before} -> {one.after}", one.kept) for one in report.widths),
    )
    before, after = report.before, report.after
    achieved = f"asked for {report.asked:.0%} of the channels, {report.achieved:.0%} are gone"
    yield Line(f"{achieved}; widths are multiples of {report.round_to}")
    yield Line(f"parameters {before.parameters:,} -> {after.parameters:,}")
    if before.macs and after.macs is not None:
        share = after.macs / before.macs
        yield Line(f"MACs {before.macs:,} -> {after.macs:,} ({share:.2f} of before)")
    yield from (Line(f"warning: {note}", Tone.NOTE) for note in report.notes)
    yield Line(f"saved in {folder}; use it as --weights {folder}")
