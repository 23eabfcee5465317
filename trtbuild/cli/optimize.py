"""``trtbuild optimize``: run graph passes over an ONNX file and compare the result with it."""

from __future__ import annotations

from pathlib import Path

import click

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
@click.option("--explain", is_flag=True, help="Say what fired where, and what did not and why.")
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
    """Optimise the graph in SOURCE and write it to TARGET.

    PASS is a name from --list; the options may be repeated, and names joined by commas. Initialisers
    that are also inputs may be overridden by a caller and are left alone, unless --fixed-weights.
    """
    if list_only:
        _list(out)
        return
    if source is None or target is None:
        raise OptionError("give the ONNX file to read and the file to write, or --list.")
    recipe = given.make(source=source, target=target)
    from trtbuild.jobs.optimize import optimize_file
    from trtbuild.passes import report as text
    from trtbuild.report.model import Line, Report, Section, Table, names, numbers
    from trtbuild.visible import visible

    with out.progress() as progress:
        done = optimize_file(recipe, progress)
    log = done.result.log
    for line in text.warnings(log):
        click.echo(f"warning: {visible(line)}", err=True)
    before, after = done.bytes_before, done.bytes_after
    rows = (*text.size_rows(done.result), ("file bytes", f"{before:,}", f"{after:,}"))
    table = Table((*names(""), *numbers("before", "after")), rows)
    blocks = (table, Line(log.comparison)) if log.comparison else (table,)
    out.show(
        Report(
            title=f"{source.name}, optimised",
            notes=tuple(map(Line, text.explanation(log))) if explain else (),
            sections=(Section("Sizes", blocks),),
            data=text.as_json(done.result) | {"file_bytes": {"before": before, "after": after}},
        )
    )


def _list(out: Output) -> None:
    from trtbuild.passes import all_passes
    from trtbuild.passes import report as text
    from trtbuild.report.model import Report, Section, Table, names

    rows = tuple(text.pass_rows(all_passes()))
    columns = names("pass", "runs", "what it does", "also called")
    data = [dict(zip(("name", "runs", "summary", "aliases"), row)) for row in rows]
    sections = (Section("Passes", (Table(columns, rows),)),)
    out.show(Report(title="graph passes", sections=sections, data=data))


if __name__ == "__main__":
    command()
