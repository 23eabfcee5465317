"""``trtbuild fleet``: builds one network for several targets."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.failure import complain
from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, page_option
from trtbuild.visible import visible_lines

__all__ = ["command"]


@click.command(
    "fleet",
    cls=SectionedCommand,
    examples=(
        ("fleet targets.toml -o fleet/", "every target, with one calibration and one table"),
        ("fleet targets.toml -o fleet/ --ray auto", "targets at the same time, on a Ray cluster"),
        ("fleet targets.toml -o fleet/ --report fleet.html", "the table as a page"),
    ),
)
@click.argument("targets", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("fleet"),
              show_default=True, help="Folder for all targets; made if absent.")  # fmt: skip
@click.option("--ray", metavar="ADDRESS", is_flag=False, flag_value="",
              help="Build targets at the same time on a Ray cluster; without an address, here.")  # fmt: skip
@page_option
@output_options
def command(
    *, targets: Path, output: Path, ray: str | None, files: ReportFiles, out: Output
) -> int:
    """Build every target of TARGETS, a TOML file, with one calibration.

    The ranges are those of one rule, and limits are only judged: no search chooses ranges, or moves layers to
    float to meet them. `trtbuild engine` does, for one target.

    Exit code 1 when a limit does not hold, 2 when a target is refused, 3 when one cannot be built here.
    """
    from trtbuild.jobs.fleet import build_fleet
    from trtbuild.report.fleet import fleet_report

    with out.progress() as progress:
        fleet = build_fleet(targets, output, ray=ray, progress=progress, besides=files.besides())
    report = fleet_report(fleet)
    out.show(report)
    files.write(report)
    if out.quiet:  # no table says so
        for target in fleet.failed:
            complain(f"trtbuild: {target.name}: {visible_lines(target.reason)}")
    return fleet.exit_code
