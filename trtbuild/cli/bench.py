"""``trtbuild bench``: how fast is the engine, and is it slower than it was?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.option_fields import Given, SectionedCommand, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.recipe import BenchRecipe

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trtbuild.jobs.bench import BenchResult
    from trtbuild.report.model import Report

__all__ = ["command"]


@click.command("bench", cls=SectionedCommand)
@click.argument("engine", metavar="ENGINE", type=click.Path(path_type=Path))
@recipe_options(BenchRecipe, file=True)
@click.option("--strict", is_flag=True, help="'cannot tell' is a failure too.")
@report_options
@output_options
def command(
    *, engine: Path, given: Given[BenchRecipe], strict: bool, files: ReportFiles, out: Output
) -> int:
    """Time ENGINE; with --against, answer faster, same, slower or cannot tell.

    Exit code 1 when it is slower. Without --data the inputs are random numbers.
    """
    recipe = given.make(engine=engine)
    from trtbuild.jobs.bench import bench

    with out.progress() as progress:
        result = bench(recipe, progress)
    files.write(lambda: _report(engine.name, result))
    out.say(*_summary(result))
    out.result(result.to_json())
    return 1 if result.slower or (strict and result.unclear) else 0


_COLORS = {"faster": "green", "slower": "red", "cannot tell": "yellow"}


def _report(title: str, result: BenchResult) -> Report:
    from trtbuild.report.model import Report

    return Report(
        title=title,
        facts={"inputs": result.data},
        latency_verdicts=result.verdicts,
        samples=result.samples,
        device=result.device,
        conditions=result.conditions,
    )


def _summary(result: BenchResult) -> list[RenderableType]:
    from trtbuild.report import text

    parts: list[RenderableType] = [text.latency_table(result.samples)]
    parts.append(f"on {result.device}; inputs: {result.data}")
    parts += [f"[yellow]note[/yellow]: {remark}" for remark in result.conditions.remarks()]
    for verdict in result.verdicts:
        color = _COLORS.get(str(verdict.answer), "green")
        parts.append(f"[{color}]{verdict}[/{color}]")
    return parts
