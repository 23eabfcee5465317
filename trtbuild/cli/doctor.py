"""``trtbuild doctor``: what is here, what will work, and the command that mends the rest."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from trtbuild.cli.output import Output, output_options

if TYPE_CHECKING:
    from rich.table import Table

    from trtbuild.jobs.doctor import Ability, Finding

__all__ = ["command"]

_COLORS = {"ok": "green", "absent": "yellow", "broken": "red"}
_BROKEN = 3


@click.command("doctor")
@output_options
def command(*, out: Output) -> int:
    """Look at Python, ONNX Runtime, TensorRT, the CUDA driver, GPUs, packages and disk.

    Exit code 3 when something is there and does not work; what is merely absent is no failure.
    """
    from trtbuild.jobs.doctor import State, abilities, examine

    findings = examine()
    found = abilities(findings)
    out.say(_parts(findings), _abilities(found))
    out.result(
        {
            "parts": [dataclasses.asdict(finding) for finding in findings],
            "abilities": [dataclasses.asdict(ability) for ability in found],
        }
    )
    return _BROKEN if any(finding.state is State.BROKEN for finding in findings) else 0


def _parts(findings: list[Finding]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("part", "state", "found", "what mends it")
    for finding in findings:
        color = _COLORS[str(finding.state)]
        table.add_row(
            finding.part,
            f"[{color}]{finding.state}[/]",
            escape(finding.found),
            escape(finding.remedy),
        )
    return table


def _abilities(found: list[Ability]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("what", "works here", "because")
    for ability in found:
        table.add_row(ability.what, "yes" if ability.works else "no", escape(ability.why))
    return table
