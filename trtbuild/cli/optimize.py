"""``trtbuild optimize``: run graph passes over an ONNX file and compare the result with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from trtbuild.cli.output import Output, output_options
from trtbuild.errors import OptionError
from trtbuild.model import read_model, read_unchanged, write_model
from trtbuild.passes import OptimizeOptions, all_passes, optimize
from trtbuild.passes import report as text

if TYPE_CHECKING:
    from collections.abc import Sequence

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
@click.option("--list", "list_only", is_flag=True, help="Show all passes and stop.")
@click.option("--explain", is_flag=True, help="Say what fired where, and what did not and why.")
@click.option("--no-check", is_flag=True, help="Do not compare the result with the original.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the compared inputs.")
@click.option("--fixed-weights", is_flag=True,
              help="Weights that are also inputs are weights; opset 13 or newer.")  # fmt: skip
@output_options
def command(
    *,
    source: Path | None,
    target: Path | None,
    enable: list[str],
    disable: list[str],
    only: list[str],
    list_only: bool,
    explain: bool,
    no_check: bool,
    seed: int,
    fixed_weights: bool,
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
    options = OptimizeOptions(
        enable=enable, disable=disable, only=only, check=not no_check, seed=seed
    )
    model = read_model(source) if fixed_weights else read_unchanged(source)
    with out.progress() as progress:
        result = optimize(model, options, progress)
    files = write_model(result.model, target)
    sizes = (source.stat().st_size, sum(file.stat().st_size for file in files))
    for line in text.warnings(result.log):
        click.echo(f"warning: {line}", err=True)
    if explain:
        out.say(*text.explanation(result.log))
    rows = [*text.size_rows(result), ("file bytes", f"{sizes[0]:,}", f"{sizes[1]:,}")]
    out.say(_table(("", "before", "after"), rows), result.log.comparison)
    out.result(text.as_json(result) | {"file_bytes": {"before": sizes[0], "after": sizes[1]}})


def _list(out: Output) -> None:
    rows = text.pass_rows(all_passes())
    out.say(_table(("pass", "runs", "what it does", "also called"), rows))
    out.result([dict(zip(("name", "runs", "summary", "aliases"), row)) for row in rows])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    command()
