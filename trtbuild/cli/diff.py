"""``trtbuild diff``: compares two engines of one model, node by node."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, page_option
from trtbuild.recipes import DiffRecipe

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command(
    "diff",
    cls=SectionedCommand,
    examples=(
        ("diff out/ rebuilt/", "two builds of one model"),
        ("diff old.int8.onnx new.int8.onnx --tolerance 0.01", "two Q/DQ networks, of any tools"),
        ("diff a.plan b.plan --times-a a.json --times-b b.json", "with what each layer takes"),
    ),
)
@click.argument("first", metavar="A", type=_PATH)
@click.argument("second", metavar="B", type=_PATH)
@recipe_options(DiffRecipe)
@click.option("--all", "show_all", is_flag=True, help="List every node, not only what differs.")
@page_option
@output_options
def command(
    *,
    first: Path,
    second: Path,
    given: Given[DiffRecipe],
    show_all: bool,
    files: ReportFiles,
    out: Output,
) -> int:
    """Compare two engines of one model, node by node: precision, ranges, kernels, time, size.

    A and B are each a folder of a build, its manifest, an ONNX network, a TensorRT plan, or the JSON of
    ``trtexec --exportLayerInfo``. Nodes are matched by name, and by what they compute where names changed.
    Exit code 0 when they compute alike, 1 when they differ.
    """
    recipe = given.make(first=first, second=second)
    from trtbuild.jobs.diff import diff_engines
    from trtbuild.report.diff import diff_report

    found = diff_engines(recipe, files.besides())
    report = diff_report(found, has_all_nodes=show_all)
    out.show(report)
    files.write(report)
    return 0 if found.equal else 1
