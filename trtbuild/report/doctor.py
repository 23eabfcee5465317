"""The result of ``trtbuild doctor`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, Tone, names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.jobs.doctor import Ability, Checkup, Finding

__all__ = ["doctor_report"]

_TONES = {"ok": Tone.GOOD, "absent": Tone.NOTE, "broken": Tone.BAD}


def doctor_report(found: Checkup) -> Report:
    """Return the report: parts of this machine, what works with them, and plug-ins of other packages."""
    return Report(
        title="this machine",
        sections=(
            Section("Parts", (_parts(found.parts),)),
            Section("Abilities", (_abilities(found.abilities),)),
            Section("Plug-ins", (_parts(found.plug_ins),) if found.plug_ins else ()),
        ),
        data=found.to_json(),
    )


def _parts(findings: Sequence[Finding]) -> Table:
    return Table(
        names("part", "state", "found", "how to fix it"),
        tuple(
            (one.part, Line(str(one.state), _TONES[str(one.state)]), one.found, one.remedy)
            for one in findings
        ),
    )


def _abilities(found: Sequence[Ability]) -> Table:
    return Table(
        names("what", "works here", "because"),
        tuple((one.what, "yes" if one.works else "no", one.why) for one in found),
    )
