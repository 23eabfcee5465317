"""``trtbuild inspect``: shows the precision that an engine really runs in, layer by layer."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.options.tensorrt import OpenOptions

__all__ = ["command"]


@click.command(
    "inspect",
    cls=SectionedCommand,
    examples=(
        ("inspect model.plan", "what each layer runs in"),
        ("inspect model.plan --all", "reformats included"),
        ("inspect model.plan --json", "the same for programs"),
    ),
)
@click.argument("engine", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--all", "show_all", is_flag=True, help="Every layer of the engine, reformats included."
)
@click.option(
    "--open", "open_it", is_flag=True, help="Ask the engine itself, not the manifest beside it."
)
@recipe_options(OpenOptions)
@output_options
def command(
    *, engine: Path, show_all: bool, open_it: bool, given: Given[OpenOptions], out: Output
) -> None:
    """Print what was asked of each layer of ENGINE, what it runs in, and why.

    ENGINE is a TensorRT plan, or the JSON of ``trtexec --exportLayerInfo``. The manifest beside a plan
    knows its layers, so that no GPU is needed; without one the plan is opened. Of a plan that was built
    without a GPU, and of a build's ONNX files, it knows what was asked of each layer.
    """
    from trtbuild.jobs.inspect import inspect_engine
    from trtbuild.report.inspect import inspection_report

    found = inspect_engine(engine, given.make(), ask=open_it)
    out.show(inspection_report(engine.name, found, every_layer=show_all))
