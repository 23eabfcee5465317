"""The result of ``trtbuild crosscheck`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrators import Agreement
from trtbuild.report.model import (
    Check,
    Line,
    Outcome,
    Plots,
    Report,
    Section,
    Table,
    names,
    numbers,
)
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calibrators.crosscheck import Comparison
    from trtbuild.jobs.crosscheck import CrosscheckResult

__all__ = ["crosscheck_report"]


def crosscheck_report(
    result: CrosscheckResult, *, has_all_tensors: bool = False, is_strict: bool = False
) -> Report:
    """Return the report.

    Args:
        result: the comparison.
        has_all_tensors: whether to list every tensor, not only flagged ones.
        is_strict: whether a tensor flagged as far is a failure, and likewise no tensor in both.
    """
    one, other = result.first, result.second
    listed = result.found.comparisons if has_all_tensors else result.found.flagged
    return Report(
        title=f"{one.name} against {other.name}",
        facts={"A": f"{one.name} ({one.kind})", "B": f"{other.name} ({other.kind})"},
        sections=(
            Section(
                "Thresholds", (_table(listed), *_lines(result), Plots(tuple(result.plots.values())))
            ),
        ),
        checks=tuple(_checks(result.found.comparisons)) if is_strict else (),
        data=result.record.to_json(),
    )


def _checks(entries: Sequence[Comparison]) -> Iterator[Check]:
    yield from map(_check, entries)
    if not entries:
        why = "no tensor is in both, so nothing was compared"
        yield Check("thresholds", "thresholds", "tensors in both", Outcome.FAILED, why)


def _check(entry: Comparison) -> Check:
    return Check(
        suite="thresholds",
        subject="thresholds",
        what=entry.tensor,
        outcome=Outcome.FAILED if entry.agreement is Agreement.FAR else Outcome.PASSED,
        text=f"{entry.tensor}: {entry.first:.5g} and {entry.second:.5g}, {entry.agreement}",
        is_expected=True,
    )


def _table(entries: Sequence[Comparison]) -> Table:
    headings = ("A", "B", "B / A", "bins", "clipped %", "SQNR, dB", "")
    return Table((*names("tensor"), *numbers(*headings)), tuple(map(_cells, entries)))


def _cells(entry: Comparison) -> tuple[str, ...]:
    clipped, sqnr = "", ""
    if entry.costs is not None:
        clipped = ", ".join(f"{100 * cost.clipped_share:.3f}" for cost in entry.costs)
        sqnr = ", ".join(f"{cost.sqnr_db:.1f}" for cost in entry.costs)
    return (
        entry.tensor,
        f"{entry.first:.5g}",
        f"{entry.second:.5g}",
        f"{entry.ratio:.3f}",
        f"{entry.bins:+.0f}",
        clipped,
        sqnr,
        str(entry.agreement),
    )


def _lines(result: CrosscheckResult) -> Iterator[Line]:
    found = result.found
    counts = ", ".join(
        f"{found.count(agreement)} {agreement}" for agreement in Agreement if found.count(agreement)
    )
    yield Line(f"{counted(len(found.comparisons), 'tensor')} in both: {counts or 'none'}")
    sides = ((result.first.name, found.only_first), (result.second.name, found.only_second))
    for side, alone in sides:
        if alone:
            yield Line(f"only in {side}: {counted(len(alone), 'tensor')}, for example '{alone[0]}'")
    if result.files:
        yield Line(f"{counted(len(result.files), 'plot')} in {result.files[0].parent}")
