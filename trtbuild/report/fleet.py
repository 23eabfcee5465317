"""The result of ``trtbuild fleet`` as a report: one table of all targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.jobs.fleet import FleetOutcome
from trtbuild.report.model import Line, Report, Section, Table, Tone, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from trtbuild.jobs.fleet import Fleet, FleetTarget
    from trtbuild.report.model import Cell

__all__ = ["fleet_report"]

_TONES = {
    FleetOutcome.SHIP: Tone.GOOD,
    FleetOutcome.DO_NOT_SHIP: Tone.BAD,
    FleetOutcome.REFUSED: Tone.BAD,
}


def fleet_report(fleet: Fleet) -> Report:
    """Return the report."""
    columns = (
        *names("target", "outcome", "built by", "engine"),
        *numbers("bytes", "SQNR, dB"),
        *names("accuracy", "of"),
        *numbers("ms here", "INT8 nodes", "s"),
    )
    table = Table(columns, tuple(map(_row, fleet.targets)))
    return Report(
        title=f"{fleet.model} for {counted(len(fleet.targets), 'target')}",
        facts={"calibration": fleet.calibration or "none"},
        sections=(Section("Targets", (table, *map(_reason, fleet.targets))),),
        data=fleet.to_json(),
    )


def _row(target: FleetTarget) -> tuple[Cell, ...]:
    return (
        target.name,
        Line(str(target.outcome), _TONES.get(target.outcome, Tone.NOTE)),
        target.backend,
        f"{target.folder}/{target.engine}" if target.engine else "",
        str(target.num_bytes) if target.engine else "",
        "" if target.sqnr_db is None else f"{target.sqnr_db:.1f}",
        _accuracy(target),
        target.judged,
        "" if target.latency_ms is None else f"{target.latency_ms:.3g}",
        f"{target.int8_layers} of {target.num_layers}" if target.num_layers else "",
        f"{target.seconds:.1f}" if target.engine else "",
    )


def _accuracy(target: FleetTarget) -> Cell:
    """The figure of the task, and what is lost against labels."""
    lines = []
    for name, figure in target.figures.items():
        if name != "top-1, %" and not name.startswith("SQNR of "):
            what, _, unit = name.partition(", ")
            text = f"{what} {figure.value:.3g} {unit}".rstrip()
            ends = figure.between
            lines.append(text if ends is None else f"{text} ({ends[0]:.3g} to {ends[1]:.3g})")
    return tuple(lines) if len(lines) > 1 else "".join(lines)


def _reason(target: FleetTarget) -> Line:
    """A line under the table; in its last column, sentences would be as narrow as a word."""
    return Line(f"{target.name}: {target.reason}", _TONES.get(target.outcome, Tone.NOTE))
