"""``trtbuild bench``: how fast is the engine, and is it slower than it was?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.backends import AUTO
from trtbuild.cli.data_options import data_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.cli.tensorrt_options import opening_options
from trtbuild.errors import OptionError
from trtbuild.jobs.bench import BenchRecipe, BenchResult, bench
from trtbuild.latency.measure import MeasureOptions
from trtbuild.latency.regress import DEFAULT_MARGIN_PERCENT, Answer
from trtbuild.report import text
from trtbuild.report.model import Report

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trtbuild.recipe import DataRecipe

__all__ = ["command"]


@click.command("bench")
@click.argument("engine", metavar="ENGINE", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), metavar="ENGINE|BASELINE.json",
              help="Compare with another engine, in turns, or with a baseline of this device.")  # fmt: skip
@data_options
@click.option("--batch-size", "sizes", default="", metavar="N[,N...]",
              help="One batch size, or several for a sweep.")  # fmt: skip
@click.option("--within", "margin", type=float, default=DEFAULT_MARGIN_PERCENT, show_default=True,
              help="Differences below this count as none, percent.")  # fmt: skip
@click.option("--seconds", type=float, default=3.0, show_default=True,
              help="How long to measure, for each batch size.")  # fmt: skip
@click.option("--warmup-ms", type=float, default=200.0, show_default=True, help="Not counted.")
@click.option("--save-baseline", type=click.Path(path_type=Path),
              help="Keep the latencies for --against on this device.")  # fmt: skip
@click.option("--strict", is_flag=True, help="'cannot tell' is a failure too.")
@opening_options
@click.option("--backend", default=AUTO, show_default=True, help="What opens the engines.")
@report_options
@output_options
def command(
    *,
    engine: Path,
    against: Path | None,
    data: DataRecipe,
    sizes: str,
    margin: float,
    seconds: float,
    warmup_ms: float,
    save_baseline: Path | None,
    strict: bool,
    backend: str,
    settings: dict[str, Any],
    files: ReportFiles,
    out: Output,
) -> int:
    """Time ENGINE; with --against, answer faster, same, slower or cannot tell.

    Exit code 1 when it is slower. Without --data the inputs are random numbers.
    """
    recipe = BenchRecipe(
        engine=engine,
        against=against,
        data=data,
        backend=backend,
        settings=settings,
        batch_sizes=_batch_sizes(sizes),
        measure=MeasureOptions(warmup_ms=warmup_ms, duration_ms=1000.0 * seconds),
        margin_percent=margin,
        save_baseline=save_baseline,
    )
    with out.progress() as progress:
        result = bench(recipe, progress)
    files.write(lambda: _report(engine.name, result))
    out.say(*_summary(result))
    out.result(result.to_json())
    return 1 if result.slower or (strict and result.unclear) else 0


def _batch_sizes(text_: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text_.split(",") if part.strip())
    except ValueError as error:
        raise OptionError(f"--batch-size cannot be '{text_}'; write for example 1,8,32.") from error
    if any(size < 1 for size in sizes):
        raise OptionError(f"--batch-size cannot be '{text_}'; a batch has at least one image.")
    return sizes


_COLORS = {Answer.FASTER: "green", Answer.SLOWER: "red", Answer.CANNOT_TELL: "yellow"}


def _report(title: str, result: BenchResult) -> Report:
    return Report(
        title=title,
        facts={"inputs": result.data},
        latency_verdicts=result.verdicts,
        samples=result.samples,
        device=result.device,
        conditions=result.conditions,
    )


def _summary(result: BenchResult) -> list[RenderableType]:
    parts: list[RenderableType] = [text.latency_table(result.samples)]
    parts.append(f"on {result.device}; inputs: {result.data}")
    parts += [f"[yellow]note[/yellow]: {remark}" for remark in result.conditions.remarks()]
    for verdict in result.verdicts:
        color = _COLORS.get(verdict.answer, "green")
        parts.append(f"[{color}]{verdict}[/{color}]")
    return parts
