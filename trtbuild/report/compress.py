"""A compression as a report: the cost and loss of every step, and the figure over work and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.jobs.compress.record import FILE, TITLES
from trtbuild.plots.data import Path, Stop
from trtbuild.report.model import (
    Card,
    Check,
    Line,
    Outcome,
    Plots,
    Report,
    Section,
    Table,
    Tone,
    details,
    names,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.jobs.compress import CompressOutcome
    from trtbuild.jobs.compress.record import Compression, CompressionPoint
    from trtbuild.report.model import Block

__all__ = ["compress_report"]

# A path needs at least two points.
_FEWEST_STOPS = 2


def compress_report(outcome: CompressOutcome) -> Report:
    """Return the report of ``trtbuild compress`` and ``trtbuild tune``."""
    record = outcome.record
    return Report(
        title=f"{record.target}, compressed"
        if _is_compressed(record)
        else f"{record.target}, trained",
        cards=tuple(_cards(record)),
        notes=tuple(_notes(outcome)),
        sections=(
            Section("Stages", (_table(record),)),
            Section("What accuracy costs", tuple(_paths(record))),
        ),
        files=_files(outcome),
        checks=tuple(_check(point) for point in record.points if point.limit is not None),
        verdict=record.why,
        ruling=record.verdict,
        data=record.to_json(),
    )


def _is_compressed(record: Compression) -> bool:
    return any(point.stage not in ("loaded", "tuned") for point in record.points)


def _last(record: Compression) -> CompressionPoint | None:
    """The smallest form of the round that is kept."""
    kept = [point for point in record.points if point.round == record.chosen]
    return kept[-1] if kept else None


def _cards(record: Compression) -> Iterator[Card]:
    first, last = record.points[0], _last(record)
    if last is None:
        return
    if last.figure is not None and last.lost is not None and first.figure is not None:
        tone = Tone.PLAIN if last.limit is None else Tone.GOOD if last.passed else Tone.BAD
        detail = f"{first.figure:.4g} as loaded, {-last.lost:+.3g}"
        yield Card("Evaluation", f"{last.figure:.4g}", detail, tone)
    if first.macs and last.macs is not None:
        yield Card("Work", f"{last.macs / first.macs:.0%}", f"{last.macs / 1e6:,.2f} million MACs")
    share = last.weight_bytes / max(first.weight_bytes, 1)
    yield Card("Size", f"{share:.0%}", f"{last.weight_bytes / 1000:,.1f} kB of weights")
    if last.latency_share is not None and last.latency_ms is not None:
        yield Card("Latency", f"{last.latency_share:.0%}", f"{last.latency_ms:.3g} ms")


def _notes(outcome: CompressOutcome) -> Iterator[Line]:
    if outcome.resumed:
        yield Line(
            f"an earlier run had done {outcome.resumed} of {len(outcome.record.steps)} steps"
        )
    yield from (Line(f"warning: {text}", Tone.NOTE) for text in outcome.warnings)
    for done in outcome.record.done:
        yield from (Line(f"{done.step}: {note}", Tone.NOTE) for note in done.notes)


def _table(record: Compression) -> Table:
    first = record.points[0]
    rows = tuple(
        (
            str(point.round),
            TITLES[point.stage],
            "" if point.figure is None else f"{point.figure:.4g}",
            _lost(point),
            "" if point.limit is None else f"{point.limit:g}",
            "" if point.macs is None or not first.macs else f"{point.macs / first.macs:.0%}",
            "" if point.macs is None else f"{point.macs / 1e6:,.2f}",
            f"{point.parameters:,}",
            f"{point.weight_bytes / 1000:,.1f}",
            "" if point.latency_ms is None else f"{point.latency_ms:.3g}",
            "" if point.latency_share is None else f"{point.latency_share:.0%}",
        )
        for point in record.points
    )
    columns = (
        *numbers("round"),
        *names("stage"),
        *numbers("figure", "lost", "limit", "work"),
        *details("MACs, million", "parameters"),
        *numbers("weights, kB", "ms", "latency"),
    )
    caption = "loss, work and latency are relative to the module as it was loaded"
    return Table(columns, rows, caption)


def _lost(point: CompressionPoint) -> str | Line:
    if point.lost is None:
        return ""
    text = f"{point.lost:.3g}"
    if point.limit is None:
        return text
    return Line(text, Tone.GOOD if point.passed else Tone.BAD)


def _paths(record: Compression) -> Iterator[Block]:
    """The figure over work and over latency, for each tuned module and the final engine."""
    ends = ("loaded", "tuned", "engine")
    points = [p for p in record.points if p.stage in ends and p.figure is not None]
    first = record.points[0]
    limit = record.points[0].figure
    most = next((p.limit for p in points if p.limit is not None), None)
    lowest = None if limit is None or most is None else limit - most
    axes: list[tuple[str, Callable[[CompressionPoint], float | None]]] = [
        (
            "MACs, % of the module as loaded",
            lambda p: 100.0 * p.macs / first.macs if p.macs is not None and first.macs else None,
        ),
        (
            "latency, % of the module as loaded",
            lambda p: None if p.latency_share is None else 100.0 * p.latency_share,
        ),
    ]
    for title, across in axes:
        stops = [
            Stop(x, point.figure, f"{TITLES[point.stage]}, round {point.round}", point.passed)
            for point in points
            if (x := across(point)) is not None and point.figure is not None
        ]
        if len(stops) >= _FEWEST_STOPS:
            plot = Path(
                f"evaluation over {title.split(',')[0]}", stops, title, "evaluation", lowest
            )
            yield Plots((plot,), is_wide=True)


def _check(point: CompressionPoint) -> Check:
    outcome = Outcome.PASSED if point.passed else Outcome.FAILED
    return Check(
        "compression",
        point.what,
        "loss of the evaluation's figure",
        outcome,
        f"{point.lost:.4g} lost, {point.limit:g} allowed",
    )


def _files(outcome: CompressOutcome) -> dict[str, str]:
    record, folder = outcome.record, outcome.folder
    found = {str(folder / FILE): "the record of the run; the same command goes on from it"}
    if record.module:
        found[str(folder / record.module)] = "the module that is kept; use it as --weights"
    for point in record.points:
        is_kept = point.round == record.chosen and point.stage in ("folded", "form", "engine")
        if is_kept and point.path:
            found[str(folder / point.path)] = TITLES[point.stage]
    return found
