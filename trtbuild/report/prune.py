"""The result of ``trtbuild prune`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, Tone, names
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.prune import ChannelGroups, PruneOutcome
    from trtbuild.pytorch.prune import PruneGroup
    from trtbuild.report.model import Block

__all__ = ["groups_report", "prune_report"]


def prune_report(target: str, result: PruneOutcome) -> Report:
    """Return the report of a pruned module.

    Args:
        target: the module, as package.module:factory.
        result: result of the pruning.
    """
    return Report(
        title=f"{target}, pruned",
        sections=(Section("Layers", tuple(_blocks(result))),),
        data=result.to_json(),
    )


def groups_report(target: str, found: ChannelGroups) -> Report:
    """Return the report of the groups of layers whose channels depend on each other."""
    return Report(
        title=f"coupled layers of {target}",
        notes=tuple(Line(line) for group in found.groups for line in _group_lines(group)),
        data=found.to_json(),
    )


def _group_lines(group: PruneGroup) -> Iterator[str]:
    kept = f", kept: {group.kept}" if group.kept else ""
    yield f"{group.root}: {counted(group.width, 'channel')}{kept}"
    for member in group.members:
        cause = f", because of {member.because}" if member.because else ""
        channels = counted(member.num_channels, f"{member.side}put channel")
        yield f"  {member.path}: {channels}{cause}"


def _blocks(result: PruneOutcome) -> Iterator[Block]:
    report, folder = result.pruning, result.folder
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
