"""``trtbuild export``: exports a PyTorch module as a checked ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.pytorch.spec import ExportSpec

__all__ = ["command"]


@click.command(
    "export",
    cls=SectionedCommand,
    examples=(
        (
            "export torchvision.models:resnet50 --input 1x3x224x224 --dynamic batch -o resnet50.onnx",
            "a factory",
        ),
        (
            "export nets:build --weights best.pt --input 1x3x32x32 -o net.onnx",
            "a script and a checkpoint",
        ),
        ("export nets:build --input 1x3x32x32 --prune 0.3 -o small.onnx", "pruned by 30 %"),
    ),
)
@click.argument("target")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("model.onnx"),
              show_default=True, help="File to write.")  # fmt: skip
@click.option("--layer-times", is_flag=True, help="Profile the module: time of every layer.")
@recipe_options(ExportSpec, file=True)
@report_options
@output_options
def command(
    *,
    target: str,
    output: Path,
    layer_times: bool,
    given: Given[ExportSpec],
    files: ReportFiles,
    out: Output,
) -> int:
    """Export TARGET (package.module:factory) to ONNX.

    The factory is a function, a class or an nn.Module; the current directory can be imported from.
    Norms are folded, nodes are named after modules, and the file is compared with the module in
    ONNX Runtime before it appears.
    """
    spec = given.make(source={"target": target}, path=output)
    from trtbuild.jobs import export as job
    from trtbuild.report.export import export_report

    with out.progress() as progress:
        result = job.export(spec, progress, files.besides(*given.files))
    times = job.layer_times(result, spec) if layer_times else None
    report = export_report(target, result, times)
    out.show(report)
    files.write(report)
    return 0
