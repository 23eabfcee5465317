"""``trtbuild qat``: trains a PyTorch module with TensorRT's rounding, and writes its Q/DQ network."""

from __future__ import annotations

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import QatRecipe

__all__ = ["command"]


@click.command(
    "qat",
    cls=SectionedCommand,
    examples=(
        (
            "qat nets:build --weights best.pt --input 1x3x32x32 --data calib.npz --train nets:train -o qat",
            "train(module) of nets.py trains in place",
        ),
        (
            "qat nets:build --input 1x3x32x32 --data calib.npz --train nets:train --float '*head*'",
            "what matches the pattern stays float",
        ),
        (
            "engine qat/build.qat.onnx --quantized --float-model qat/build.loaded.onnx --data calib.npz",
            "what comes next",
        ),
    ),
)
@click.argument("module")
@recipe_options(QatRecipe, file=True)
@output_options
def command(*, module: str, given: Given[QatRecipe], out: Output) -> None:
    """Train MODULE (package.module:factory) with INT8 rounding at TensorRT's places (QAT).

    Norms are folded, thresholds come from calibration on --data, and the function of --train gets a module
    that rounds. Its trained scales are those of the Q/DQ network that is written.
    """
    recipe = given.make(source={"target": module})
    from trtbuild.jobs import qat as job
    from trtbuild.report.qat import qat_report

    with out.progress() as progress:
        result = job.qat(recipe, progress)
    out.show(qat_report(recipe, result))
