"""``trtbuild engine``: does the whole job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, check_no_flags, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.errors import OptionError
from trtbuild.options.values import names_function
from trtbuild.recipes import EngineRecipe

if TYPE_CHECKING:
    from trtbuild.result import EngineResult

__all__ = ["command"]

_NO_NETWORK = "name the float network: an ONNX file, or package.module:factory."


@click.command(
    "engine",
    cls=SectionedCommand,
    examples=(
        (
            "engine model.onnx --int8 --data images/ --preprocess imagenet.toml",
            "INT8, calibrated on images",
        ),
        (
            "engine model.onnx --int8 --data calib.npz --labels y.npz --max-top1-drop 1",
            "with a limit",
        ),
        (
            "engine package:factory --input 1x3x224x224 --int8 --data images/",
            "from a PyTorch module",
        ),
    ),
)
@click.argument("model", type=click.Path(), required=False)
@recipe_options(EngineRecipe, file=True)
@click.option(
    "--dry-run", is_flag=True, help="Check all paths and options, and print what would be done."
)
@report_options
@output_options
def command(
    *, model: str | None, given: Given[EngineRecipe], dry_run: bool, files: ReportFiles, out: Output
) -> int:
    """Build a verified engine from the float network MODEL, in INT8, FP16 or both.

    MODEL is an ONNX file, or a PyTorch module as package.module:factory, which is exported first.

    The network is prepared, calibrated on --data, quantized, built for the backend at hand, and
    compared with the float network on data that calibration has not seen. Limits on accuracy
    (--max-top1-drop, --min-sqnr, ...) are a budget: when the plain network does not meet it, the
    cheapest way to do so is searched for on the calibration data.
    """
    recipe = _recipe(model, given)
    if dry_run:
        from trtbuild.jobs.dry_run import plan_build
        from trtbuild.report.dry_run import dry_run_report

        out.show(dry_run_report(plan_build(recipe, files.besides(*given.files))))
        return 0
    from trtbuild.runtime.isolated import started_ahead

    with started_ahead(recipe.model if recipe.optimize.check else None):
        result = _built(model, recipe, given, files, out)
    from trtbuild.report.engine import engine_report

    report = engine_report(result)
    out.show(report)
    files.write(report)
    return result.ruling.exit_code(is_strict=recipe.strict)


def _built(
    model: str | None,
    recipe: EngineRecipe,
    given: Given[EngineRecipe],
    files: ReportFiles,
    out: Output,
) -> EngineResult:
    """Export a module if there is one, and build the engine."""
    from trtbuild.model.collecting import all_made_stays

    with all_made_stays():
        from trtbuild.jobs.engine import build_engine
        from trtbuild.jobs.export import with_export

    with out.progress() as progress:
        recipe, exported = with_export(recipe, progress, files.besides(*given.files))
    if exported is not None:
        from trtbuild.report.export import export_report

        out.tell(export_report(str(model), exported))
    with out.progress() as progress:
        return build_engine(
            recipe, progress, files.besides(*given.files), explains=files.html is not None
        )


def _recipe(model: str | None, given: Given[EngineRecipe]) -> EngineRecipe:
    """The recipe; for a PyTorch module, its model is the file that the module is exported to."""
    if model == "":
        raise OptionError(_NO_NETWORK)
    is_quantized = given.values.get("quantized", False)
    fixed: dict[str, Any] = {"int8": given.values.get("int8", is_quantized)}
    if not (fixed["int8"] or given.values.get("fp16")):
        raise OptionError("say which precision to build: --int8, --fp16, or both.")
    target = given.values.get("export", {}).get("source", {}).get("target")
    named_by_file = target is not None
    if model is not None:
        target = model if names_function(model) else None
    if target is None:
        if model is None and "model" not in given.values:
            raise OptionError(_NO_NETWORK)
        plain = given.without("export")
        if not named_by_file:
            check_no_flags(given.only("export"), model or str(given.values["model"]))
        return plain.make(**fixed, **({} if model is None else {"model": Path(model)}))
    from trtbuild.jobs.export import module_values

    output = given.values.get("output", EngineRecipe.output)
    return given.make(**fixed, **module_values(target, output))
