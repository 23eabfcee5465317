"""``trtbuild doctor``: what is installed, what works, and the command that repairs the rest."""

from __future__ import annotations

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.output import Output, output_options

__all__ = ["command"]

_BROKEN = 3


@click.command(
    "doctor",
    cls=SectionedCommand,
    examples=(
        ("doctor", "what works here"),
        ("doctor --json", "the same for programs"),
        ("doctor --quiet", "only the exit code, for a script"),
    ),
)
@output_options
def command(*, out: Output) -> int:
    """Look at Python, ONNX Runtime, TensorRT, CUDA driver, GPUs, packages, disk and plug-ins.

    Exit code 3 when something is there and does not work; what is merely absent is no failure.
    """
    from trtbuild.jobs.doctor import check_up
    from trtbuild.report.doctor import doctor_report

    found = check_up()
    out.show(doctor_report(found))
    return _BROKEN if found.is_broken else 0
