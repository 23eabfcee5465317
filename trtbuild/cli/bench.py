"""``trtbuild bench``: times an engine, and says whether it has become slower."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.recipes import BenchRecipe

__all__ = ["command"]


@click.command(
    "bench",
    cls=SectionedCommand,
    examples=(
        ("bench model.plan --against model.onnx", "engine against float, in turns"),
        (
            "bench model.plan --against model.onnx --min-speedup 1.5 --max-latency 5",
            "exit 1 unless it is that fast",
        ),
        ("bench model.plan --save-baseline model.json", "keep the latencies of this device"),
        ("bench model.plan --against model.json", "exit 1 when it has become slower"),
    ),
)
@click.argument("engine", metavar="ENGINE", type=click.Path(path_type=Path))
@recipe_options(BenchRecipe, file=True)
@click.option("--strict", is_flag=True, help="Exit with 5, not 0, when the result is CANNOT TELL.")
@report_options
@output_options
def command(
    *, engine: Path, given: Given[BenchRecipe], strict: bool, files: ReportFiles, out: Output
) -> int:
    """Time ENGINE; with --against, answer faster, same, slower or cannot tell.

    The verdict is TOO SLOW, exit code 1, when it is slower, or slower than --min-speedup or --max-latency
    allows; CANNOT TELL, 5 with --strict and else 0; or FAST ENOUGH, 0. Without --data the inputs are random
    numbers.
    """
    recipe = given.make(engine=engine)
    from trtbuild.jobs.bench import bench
    from trtbuild.report.latency import bench_report

    with out.progress() as progress:
        result = bench(recipe, progress, files.besides(*given.files))
    report = bench_report(engine.name, result, _written(recipe))
    out.show(report)
    files.write(report)
    return 0 if result.ruling is None else result.ruling.exit_code(is_strict=strict)


def _written(recipe: BenchRecipe) -> dict[str, str]:
    """The files of a run, with descriptions."""
    found = {recipe.save_baseline: "a baseline of this device, for --against"}
    found[recipe.layer_times] = "the time of each layer, for `trtbuild diff`"
    return {str(path): what for path, what in found.items() if path is not None}
