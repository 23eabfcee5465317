"""``trtbuild quantize``: writes the explicit Q/DQ network from ranges."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import QuantizeRecipe

__all__ = ["command"]


@click.command(
    "quantize",
    cls=SectionedCommand,
    examples=(
        (
            "quantize model.onnx --calibration model.calibration.json -o model.int8.onnx",
            "TensorRT's form",
        ),
        (
            "quantize model.onnx --calibration model.calibration.json --form onnxruntime -o cpu.onnx",
            "for CPUs",
        ),
        (
            "quantize model.onnx --calibration model.calibration.json --float Gemm -o mixed.onnx",
            "some in float",
        ),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@recipe_options(QuantizeRecipe, file=True)
@click.option(
    "--list",
    "list_only",
    is_flag=True,
    help="Only list nodes and groups of Q/DQ, whether they are quantized, and why.",
)
@output_options
def command(*, model: Path, given: Given[QuantizeRecipe], list_only: bool, out: Output) -> None:
    """Write MODEL (an ONNX file) with Q/DQ from a calibration."""
    recipe = given.make(model=model)
    from trtbuild.runtime.isolated import started_ahead

    with started_ahead(model):
        from trtbuild.jobs.quantize import decide, quantize_file
        from trtbuild.report.quantize import placement_report, quantize_report

        if list_only:
            out.show(placement_report(model.name, decide(recipe)))
        else:
            out.show(quantize_report(model.name, quantize_file(recipe), recipe.output))
