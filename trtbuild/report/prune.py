"""The result of ``trtbuild prune`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.report.model import Line, Report, Section, Table, Tone, names
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from trtbuild.jobs.prune import PruneOutcome
    from trtbuild.pytorch.prune import PruneGroup, PruneReport
    from trtbuild.report.model import Block

__all__ = ["groups_report", "prune_report"]


def prune_report(target: str, result: PruneOutcome, folder: Path) -> Report:
    """Return the report of a pruned module.

    Args:
        target: the module, as package.module:factory.
        result: result of the pruning.
        folder: folder with weights and history.
    """
    return Report(
        title=f"{target}, pruned",
        sections=(Section("Layers", tuple(_blocks(result.report, folder))),),
        data={"folder": folder, "warnings": result.warnings, **result.report.as_dict()},
    )


def groups_report(target: str, groups: Iterable[PruneGroup]) -> Report:
    """Return the report of the groups of layers whose channels depend on each other."""
    groups = tuple(groups)
    return Report(
        title=f"coupled layers of {target}",
        notes=tuple(Line(line) for group in groups for line in _group_lines(group)),
        data=[_group_json(group) for group in groups],
    )


def _group_lines(group: PruneGroup) -> Iterator[str]:
    kept = f", kept: {group.kept}" if group.kept else ""
    yield f"{group.root}: {counted(group.width, 'channel')}{kept}"
    for member in group.members:
        cause = f", because of {member.because}" if member.because else ""
        channels = counted(member.num_channels, f"{member.side}put channel")
        yield f"  {member.path}: {channels}{cause}"


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
