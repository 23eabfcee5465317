"""``trtbuild optimize``: run graph passes over an ONNX file and compare the result with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.graph import OptimizeResult

__all__ = ["command"]


def _names(_context: click.Context, _option: click.Parameter, given: Sequence[str]) -> list[str]:
    """Take names apart that were given with commas."""
    return [name.strip() for item in given for name in item.split(",") if name.strip()]


@click.command("optimize")
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.argument("target", type=click.Path(path_type=Path), required=False)
@click.option("--enable", metavar="PASS", multiple=True, callback=_names, help="Run this as well.")
@click.option("--disable", metavar="PASS", multiple=True, callback=_names, help="Do not run this.")
@click.option("--only", metavar="PASS", multiple=True, callback=_names, help="Run nothing else.")
@click.option("--list", "list_passes", is_flag=True, help="Show all passes and stop.")
@click.option("--explain", is_flag=True, help="Say what fired where, and what did not and why.")
@click.option("--no-check", is_flag=True, help="Do not compare the result with the original.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the compared inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but warnings.")
def command(source: Path | None, target: Path | None, **options: Any) -> None:
    """Optimise the graph in SOURCE and write it to TARGET.

    PASS is a name from --list; the option may be repeated, and names may be joined by commas.
    """
    if options["list_passes"]:
        _print_passes()
        return
    if source is None or target is None:
        raise click.UsageError("give the file to read and the file to write.")
    from trtbuild.graph import OptimizeOptions, optimize
    from trtbuild.graph.graph_files import read_graph, write_graph

    result = optimize(
        read_graph(source),
        OptimizeOptions(
            enable=options["enable"],
            disable=options["disable"],
            only=options["only"],
            check=not options["no_check"],
            seed=options["seed"],
        ),
    )
    files = write_graph(result.model, target)
    sizes = (source.stat().st_size, sum(file.stat().st_size for file in files))
    _print_result(result, sizes, options)


def _print_passes() -> None:
    from rich.console import Console
    from rich.table import Table

    from trtbuild.graph import all_passes
    from trtbuild.graph.report import pass_rows

    table = Table("pass", "runs", "what it does", box=None)
    for row in pass_rows(all_passes()):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_result(result: OptimizeResult, sizes: tuple[int, int], options: dict[str, Any]) -> None:
    from trtbuild.graph import report

    if options["as_json"]:
        content = report.as_json(result) | {"file_bytes": {"before": sizes[0], "after": sizes[1]}}
        click.echo(json.dumps(content, indent=2))
    for line in report.warnings(result.log):
        click.echo(f"warning: {line}", err=True)
    if options["quiet"] or options["as_json"]:
        return
    if options["explain"]:
        for line in report.explanation(result.log):
            click.echo(line)
    rows = [*report.size_rows(result), ("file bytes", f"{sizes[0]:,}", f"{sizes[1]:,}")]
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    for name, before, after in rows:
        click.echo(f"{name:<{widths[0]}}  {before:>{widths[1]}}  {after:>{widths[2]}}")
    click.echo(result.log.comparison)


if __name__ == "__main__":
    command()
