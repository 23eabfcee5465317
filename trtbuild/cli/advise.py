"""``trtbuild advise``: finds duplicates and outliers in calibration data, and a subset that suffices."""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, page_option
from trtbuild.recipes import AdviseRecipe

__all__ = ["command"]


@click.command(
    "advise",
    cls=SectionedCommand,
    examples=(
        ("advise model.onnx --data images/ --preprocess imagenet.toml", "what is in the data"),
        ("advise model.onnx --data calib.npz --subset few.npz", "write the few that suffice"),
        ("advise model.onnx --data calib.npz --report advice.html", "the same as a page"),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@recipe_options(AdviseRecipe, file=True)
@page_option
@output_options
def command(*, model: Path, given: Given[AdviseRecipe], files: ReportFiles, out: Output) -> None:
    """Name near-duplicates and outliers of MODEL's calibration data, and the few samples that suffice."""
    recipe = given.make(model=model)
    from trtbuild.jobs.advise import advise
    from trtbuild.report.advise import advice_report

    with out.progress() as progress:
        found = advise(recipe, progress, files.besides(*given.files))
    report = advice_report(found)
    out.show(report)
    files.write(report)
