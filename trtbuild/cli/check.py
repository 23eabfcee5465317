"""``trtbuild check``: does TensorRT accept this network?"""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.recipes import CheckRecipe

__all__ = ["command"]


@click.command(
    "check",
    cls=SectionedCommand,
    examples=(
        ("check model.onnx", "every node that the parser rejects, why, and what to do"),
        ("check model.int8.onnx --build", "build the Q/DQ network, too"),
        (
            "check model.onnx --backend tensorrt-rtx --json",
            "with the parser that needs no GPU, as JSON",
        ),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@recipe_options(CheckRecipe)
@report_options
@output_options
def command(*, model: Path, given: Given[CheckRecipe], files: ReportFiles, out: Output) -> int:
    """Say whether NVIDIA's parser accepts MODEL, an ONNX file, float or with Q/DQ.

    The parser is that of TensorRT, or of TensorRT for RTX, which needs no GPU. Every node that it refuses is
    named with the reason and what can be done, and so is every operator that needs a plugin. The verdict is
    ACCEPTED, or REJECTED with exit code 1; 3 when no parser is installed.
    """
    recipe = given.make(model=model)
    from trtbuild.jobs.check import check_network
    from trtbuild.report.check import check_report

    with out.progress() as progress:
        result = check_network(recipe, progress, files.besides())
    report = check_report(result)
    out.show(report)
    files.write(report)
    return result.ruling.exit_code()
