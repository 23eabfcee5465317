"""``trtbuild optimize``: run graph passes over an ONNX file and compare the result with it."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.failure import complain
from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.errors import OptionError
from trtbuild.recipes import OptimizeRecipe

__all__ = ["command"]


@click.command(
    "optimize",
    cls=SectionedCommand,
    examples=(
        ("optimize model.onnx clean.onnx", "all passes, the result compared with the original"),
        ("optimize model.onnx clean.onnx --disable fold_constants", "all but one"),
        ("optimize model.onnx clean.onnx --only fold_batch_norm_into_conv", "one alone"),
    ),
)
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.argument("target", type=click.Path(path_type=Path), required=False)
@recipe_options(OptimizeRecipe, file=True)
@click.option("--list", "list_only", is_flag=True, help="Show all passes and stop.")
@click.option(
    "--explain",
    is_flag=True,
    help="Show what each pass changed, and what it did not change and why.",
)
@output_options
def command(
    *,
    source: Path | None,
    target: Path | None,
    given: Given[OptimizeRecipe],
    list_only: bool,
    explain: bool,
    out: Output,
) -> None:
    """Optimize the graph in SOURCE and write it to TARGET.

    PASS is a name from --list; the options may be repeated, and names joined by commas. Initializers
    that are also inputs may be overridden by a caller and are left alone, unless --fixed-weights.
    """
    if list_only:
        from trtbuild.jobs.optimize import passes_list
        from trtbuild.report.optimize import passes_report

        out.show(passes_report(passes_list()))
        return
    if source is None or target is None:
        raise OptionError("give the ONNX file to read and the file to write, or --list.")
    recipe = given.make(source=source, target=target)
    from trtbuild.model.collecting import all_made_stays
    from trtbuild.runtime.isolated import started_ahead

    with started_ahead(source if recipe.options.check else None), all_made_stays():
        from trtbuild.jobs.optimize import optimize_file

        with out.progress() as progress:
            done = optimize_file(recipe, progress)
    from trtbuild.report.optimize import optimize_report, pass_warnings
    from trtbuild.visible import visible

    for line in pass_warnings(done.result.log):
        complain(f"warning: {visible(line)}")
    out.show(optimize_report(source.name, done, explains=explain))
