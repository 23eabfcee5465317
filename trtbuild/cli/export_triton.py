"""``trtbuild export-triton``: writes an engine into a Triton model repository."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import TritonRecipe

__all__ = ["command"]


@click.command(
    "export-triton",
    cls=SectionedCommand,
    examples=(
        ("export-triton out -o repository", "the engine of the build in out/"),
        ("export-triton out/model.plan -o repository --name classifier --instances 2", "more of it"),
        ("export-triton out -o repository --max-batch-size 0", "requests contain the batch axis"),
    ),
)  # fmt: skip
@click.argument("engine", type=click.Path(path_type=Path))
@recipe_options(TritonRecipe)
@output_options
def command(*, engine: Path, given: Given[TritonRecipe], out: Output) -> None:
    """Write ENGINE, a file or the folder of a build, into a Triton model repository.

    NAME/1/model.plan (or model.onnx) and NAME/config.pbtxt: inputs and outputs with types and dims, batching,
    instances. Plans for RTX are refused: Triton has no backend for them.
    """
    recipe = given.make(engine=engine)
    from trtbuild.jobs.triton import export_triton
    from trtbuild.report.triton import triton_report

    out.show(triton_report(export_triton(recipe)))
