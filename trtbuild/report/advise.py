"""The result of ``trtbuild advise`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.calibration.advice import FAR, NEAR
from trtbuild.calibration.instability import HARMLESS_DB
from trtbuild.report.model import Card, Line, Report, Section, Table, Tone, names, numbers
from trtbuild.wording import counted, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.advise import DataAdvice

__all__ = ["advice_report"]

_NUM_SHOWN = 20
_MOST_NAMED = 5


def advice_report(found: DataAdvice) -> Report:
    """Return the report."""
    return Report(
        title=f"advice on {found.data}",
        cards=tuple(_cards(found)),
        facts={"data": found.data},
        sections=(
            Section("Near-duplicates", (_copies(found), _duplicates(found))),
            Section("Outliers", (_outliers(found),)),
            Section("The subset", (Line(_subset(found)),) if not found.file else ()),
        ),
        files={found.file: "the subset"} if found.file else {},
        data=found.to_json(),
    )


def _subset(found: DataAdvice) -> str:
    shown = listed(found.subset, _NUM_SHOWN)
    return f"{shown}; --subset FILE writes all" if len(found.subset) > _NUM_SHOWN else shown


def _cards(found: DataAdvice) -> Iterator[Card]:
    seen = f"{counted(found.num_samples, 'sample')}, {counted(found.num_tensors, 'tensor')} each"
    if found.repeated:
        seen += f"; {found.repeated} more equal to another to the bit, left out here"
    count = sum(len(group) - 1 for group in found.duplicates)
    yield Card("Near-duplicates", str(count), seen, Tone.NOTE if count else Tone.PLAIN)
    alone = "each alone decides the ranges of some tensors"
    if found.outliers:
        yield Card("Outliers", str(len(found.outliers)), alone, Tone.NOTE)
    share = f"{found.rule}'s thresholds within {100 * found.within:.3g} %, or as good to {HARMLESS_DB:g} dB"
    yield Card("Samples that suffice", str(len(found.subset)), f"of {found.num_samples}: {share}")


def _copies(found: DataAdvice) -> Table:
    return _groups(
        found.copies,
        "equal to the bit: the rule counts each copy, and the figures here count one of them",
        "is equal",
    )


def _duplicates(found: DataAdvice) -> Table:
    caption = (
        f"largest magnitude and root mean square of every tensor agree to {NEAR:.0%}: "
        "leave the second and later ones out"
    )
    return _groups(found.duplicates, caption, "says the same")


def _groups(groups: tuple[tuple[str, ...], ...], caption: str, others: str) -> Table:
    rows = tuple(
        (group[0], listed(group[1:], _MOST_NAMED), str(len(group) - 1)) for group in groups
    )
    return Table((*names("sample", others), *numbers("how many")), rows, caption, _NUM_SHOWN)


def _outliers(found: DataAdvice) -> Table:
    rows = tuple(
        (one.name, str(one.num_tensors), one.tensor, f"{one.ratio:.3g}") for one in found.outliers
    )
    caption = (
        f"alone it reaches more than {FAR:g} times what every other sample does: look whether it belongs to "
        "what the engine will see"
    )
    columns = (*names("sample"), *numbers("tensors"), *names("furthest in"), *numbers("times"))
    return Table(columns, rows, caption, _NUM_SHOWN)
