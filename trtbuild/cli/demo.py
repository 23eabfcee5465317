"""``trtbuild demo``: repairs a broken INT8 network, in a minute and without the user's own data."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.output import Output, output_options

__all__ = ["command"]


@click.command(
    "demo",
    cls=SectionedCommand,
    examples=(
        ("demo", "both builds, and the HTML report"),
        ("demo -o try", "files go to try/"),
        ("demo --json", "the figures of both, for programs"),
    ),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("trtbuild-demo"),
    show_default=True,
    help="Folder for the network, its data, both builds and the HTML report.",
)
@output_options
def command(*, output: Path, out: Output) -> int:
    """Build a network that INT8 breaks, twice: by one rule for all ranges, and with a limit on accuracy.

    Takes about a minute on two CPUs. Network and images come with trtbuild; nothing is downloaded, and no
    browser is opened. Where TensorRT for RTX is installed, its compiler builds a plan, too.
    """
    from trtbuild.jobs.demo import demonstrate
    from trtbuild.report.demo import demo_page, demo_report
    from trtbuild.report.html import write_page

    with out.progress() as progress:
        done = demonstrate(output, progress)
    page = output / "report.html"
    write_page(demo_page(done, page), page)
    out.show(demo_report(done, page))
    return done.after.ruling.exit_code()
