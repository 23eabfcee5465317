"""The result of ``trtbuild verify`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.accuracy import (
    accuracy_checks,
    accuracy_section,
    gallery,
    holds_classes,
    layer_blocks,
)
from trtbuild.report.cards import accuracy_cards
from trtbuild.report.model import Column, Line, Report, Section, Table, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbuild.jobs.verify import Verification
    from trtbuild.report.model import Block
    from trtbuild.search.bisect import Culprits
    from trtbuild.search.sensitivity import GroupSensitivity

__all__ = ["verification_report"]

# Number of layers and groups that a page shows unfolded, and that a terminal shows; and of the worst images
# in a terminal.
_NUM_LAYERS = 12
_NUM_WORST = 3


def verification_report(found: Verification) -> Report:
    """Return the report of ``trtbuild verify``."""
    checks = accuracy_checks({found.engine: found.verdict})
    blocks: list[Block] = []
    if found.layers is not None:
        blocks += layer_blocks(found.layers, _NUM_LAYERS)
    if found.culprits is not None:
        blocks += _culprits(found.culprits)
    if found.sensitivity is not None:
        compared = found.comparison
        has_classes = any(
            holds_classes(compared, output, found.limits) for output in compared.outputs
        )
        blocks.append(_sensitivity(found.sensitivity, has_classes=has_classes))
    return Report(
        title=f"{found.engine} against {found.reference}",
        facts={
            "engine": found.engine,
            "float network": found.reference,
            "data": found.data,
            **({"samples": found.account} if found.account else {}),
        },
        cards=tuple(accuracy_cards(found.comparison, found.verdict)),
        sections=(
            Section("Worst samples", tuple(gallery(found.engine, found.comparison))),
            accuracy_section({found.engine: found.comparison}, _NUM_WORST, found.limits),
            Section("Layers", tuple(blocks)),
        ),
        checks=checks,
        verdict=found.ruling.why,
        ruling=found.ruling.word,
        next_step=found.next_step,
        data=found.to_json(),
    )


def _culprits(found: Culprits) -> Iterator[Line]:
    runs = f"({found.num_evaluations} evaluations)"
    if found.passes_quantized:
        yield Line(f"bisecting: on these samples no limit fails {runs}")
    elif not found.passes_float:
        yield Line(
            f"bisecting: quantization is not the cause; the limits fail with all in float too {runs}"
        )
    else:
        yield Line(
            f"bisecting: the failure comes from {counted(len(found.groups), 'group')} {runs}; with that in "
            "float it passes:"
        )
        yield from (Line(f"  {name}") for name in found.groups)


def _sensitivity(groups: Sequence[GroupSensitivity], *, has_classes: bool) -> Table:
    rows = tuple(
        (
            one.group,
            one.op_type,
            f"{one.macs / 1e6:.2f}",
            f"{one.alone_sqnr_db:.1f}",
            f"{one.alone_top1_agreement_percent:.1f} %"
            if has_classes and one.alone_top1_agreement_percent is not None
            else "",
            f"{one.gained_db:+.2f}",
        )
        for one in groups
    )
    columns = (
        *names("group"),
        Column("op", is_name=True, is_detail=True),
        *numbers("MMAC", "alone INT8, dB", "same top-1", "gained in float, dB"),
    )
    caption = "most harmful alone first: by the task, else class probabilities, else SQNR"
    return Table(columns, rows, caption if rows else "", _NUM_LAYERS)
