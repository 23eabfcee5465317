"""``trtbuild qat``: a PyTorch module is trained with TensorRT's rounding, and becomes a Q/DQ network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import QatRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.qat import QatOutcome
    from trtbuild.report.model import Block

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
            "engine qat/build.qat.onnx --quantized --float-model qat/build.loaded.onnx --data calib.npz",
            "what comes next",
        ),
    ),
)
@click.argument("module")
@recipe_options(QatRecipe, file=True)
@output_options
def command(*, module: str, given: Given[QatRecipe], out: Output) -> int:
    """Train MODULE (package.module:factory) with INT8 rounding at TensorRT's places (QAT).

    Norms are folded, thresholds come from calibration on --data, and the function of --train gets a module
    that rounds. Its trained scales are those of the Q/DQ network that is written.
    """
    recipe = given.make(source={"target": module})
    from trtbuild.jobs import qat as job
    from trtbuild.report.accuracy import accuracy_section
    from trtbuild.report.model import Report, Section

    with out.progress() as progress:
        result = job.qat(recipe, progress)
    out.show(
        Report(
            title=f"{module}, trained with rounding",
            sections=(
                Section("Layers", tuple(_blocks(result))),
                accuracy_section(result.comparisons),
            ),
            files={
                str(
                    result.network
                ): "Q/DQ with the trained scales; build it with engine --quantized",
                str(
                    result.loaded
                ): "the float network that it is judged against, for --float-model",
            },
            data={
                "network": result.network,
                "loaded": result.loaded,
                "layers": result.layers,
                "scales": result.scales,
                "comparisons": {n: one.to_json() for n, one in result.comparisons.items()},
                "warnings": result.warnings,
            },
        )
    )
    return 0


def _blocks(result: QatOutcome) -> Iterator[Block]:
    from trtbuild.report.model import Line, Table, Tone, names, numbers

    yield Line(
        f"{len(result.layers)} layers were trained with their input and their weights rounded"
    )
    yield Table(
        (*names("layer"), *numbers("scale of its input", "trained")),
        tuple((path, f"{old:.5g}", f"{new:.5g}") for path, (old, new) in result.scales.items()),
        num_shown=12,
    )
    yield from (Line(f"warning: {text}", Tone.NOTE) for text in result.warnings)
