"""``trtbuild prune``: channels are removed, and the smaller module is saved for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from trtbuild.cli.module_options import module_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.prune_options import prune_options
from trtbuild.errors import OptionError
from trtbuild.pytorch.spec import PruneSpec

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trtbuild.cli.module_options import ModuleOptions
    from trtbuild.pytorch.prune import PruneGroup, PruneReport

__all__ = ["command"]


@click.command("prune")
@click.argument("target")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("pruned"),
              show_default=True, help="Folder for weights and history; made if absent.")  # fmt: skip
@click.option(
    "--list-groups", is_flag=True, help="Show what is coupled with what, and cut nothing."
)
@module_options
@prune_options
@output_options
def command(
    *,
    target: str,
    output: Path,
    list_groups: bool,
    module: ModuleOptions,
    prune: PruneSpec | None,
    out: Output,
) -> int:
    """Remove channels of TARGET (package.module:factory) through whole coupled groups.

    The folder that is written loads everywhere as --weights, without pickle. Without fine-tuning
    the accuracy of a network that lost half of its channels is near chance.
    """
    source = module.source_of(target)
    if prune is None and not list_groups:
        raise OptionError("say how much shall go: --prune 0.5, or --list-groups to look first.")
    from trtbuild.pytorch import load_module, require_torch

    require_torch("torch_pruning")
    from trtbuild.pytorch import prune as pruning

    loaded = load_module(source)
    if list_groups:
        groups = pruning.list_groups(loaded.module, module.inputs, prune or PruneSpec())
        out.say(*(_group_text(group) for group in groups))
        out.result([_group_json(group) for group in groups])
        return 0
    assert prune is not None
    result = pruning.prune_channels(loaded.module, module.inputs, prune)
    pruning.save_pruned(result.module, result.history, output)
    out.say(*_summary(result.report, output))
    out.result(
        {"folder": str(output), "warnings": list(loaded.warnings), **result.report.as_dict()}
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
