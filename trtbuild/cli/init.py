"""``trtbuild init``: writes a recipe file to fill in."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.output import Output, output_options
from trtbuild.errors import OutputError

__all__ = ["command"]


@click.command(
    "init",
    cls=SectionedCommand,
    examples=(
        ("init model.onnx", "write build.toml, and fill it in"),
        ("engine --recipe build.toml", "what comes next"),
        ("engine --recipe build.toml --effort high", "the command line wins"),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("build.toml"),
              show_default=True, help="File to write.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@output_options
def command(*, model: Path, output: Path, force: bool, out: Output) -> None:
    """Write a recipe for `trtbuild engine --recipe`, made for the ONNX file MODEL.

    It names the network's inputs, and has every option with its help, unit and default, commented out.
    """
    if output.exists() and not force:
        raise OutputError(f"'{output}' exists already; name another file with -o, or give --force.")
    from trtbuild.jobs.recipe_file import write_recipe
    from trtbuild.report.model import Line, Report

    written = write_recipe(model, output)
    wrote = Line(f"wrote {output}; build with: trtbuild engine --recipe {output}")
    out.show(Report(title="a recipe", notes=(wrote,), data=written.to_json()))
