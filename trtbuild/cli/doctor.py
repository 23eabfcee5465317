"""``trtbuild doctor``: what is here, what will work, and the command that mends the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trtbuild.cli.output import Output, output_options
from trtbuild.report.model import Line, Report, Section, Table, Tone, names

if TYPE_CHECKING:
    from trtbuild.jobs.doctor import Ability, Finding

__all__ = ["command"]

_TONES = {"ok": Tone.GOOD, "absent": Tone.NOTE, "broken": Tone.BAD}
_BROKEN = 3


@click.command("doctor")
@output_options
def command(*, out: Output) -> int:
    """Look at Python, ONNX Runtime, TensorRT, CUDA driver, GPUs, packages, disk and plug-ins.

    Exit code 3 when something is there and does not work; what is merely absent is no failure.
    """
    from trtbuild.jobs.doctor import State, abilities, examine, plug_ins

    findings, others = examine(), plug_ins()
    found = abilities(findings)
    out.show(
        Report(
            title="this machine",
            sections=(
                Section("Parts", (_parts(findings),)),
                Section("Abilities", (_abilities(found),)),
                Section("Plug-ins", (_parts(others),) if others else ()),
            ),
            data={"parts": findings, "abilities": found, "plug_ins": others},
        )
    )
    return _BROKEN if any(one.state is State.BROKEN for one in (*findings, *others)) else 0


def _parts(findings: list[Finding]) -> Table:
    return Table(
        names("part", "state", "found", "what mends it"),
        tuple(
            (one.part, Line(str(one.state), _TONES[str(one.state)]), one.found, one.remedy)
            for one in findings
        ),
    )


def _abilities(found: list[Ability]) -> Table:
    return Table(
        names("what", "works here", "because"),
        tuple((one.what, "yes" if one.works else "no", one.why) for one in found),
    )
