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
        *numbers("bytes", "SQNR, dB", "ms here", "INT8 nodes", "s"),
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
        "" if target.latency_ms is None else f"{target.latency_ms:.3g}",
        f"{target.int8_layers} of {target.num_layers}" if target.num_layers else "",
        f"{target.seconds:.1f}" if target.engine else "",
    )


def _reason(target: FleetTarget) -> Line:
    """A line under the table; in its last column, sentences would be as narrow as a word."""
    return Line(f"{target.name}: {target.reason}", _TONES.get(target.outcome, Tone.NOTE))
