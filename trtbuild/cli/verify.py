"""``trtbuild verify``: is the engine accurate, and if not, which layer is at fault?"""

from __future__ import annotations

from pathlib import Path

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, check_no_flags, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.errors import OptionError
from trtbuild.files import write_text
from trtbuild.json_codec import dumps
from trtbuild.options.values import names_function
from trtbuild.pytorch.spec import ModuleSource
from trtbuild.recipes import VerifyRecipe

__all__ = ["command"]


@click.command(
    "verify",
    cls=SectionedCommand,
    examples=(
        (
            "verify model.onnx model.int8.onnx --data test.npz --min-sqnr 25",
            "judge an engine by a limit",
        ),
        (
            "verify model.onnx model.plan --data images/ --labels folders",
            "top-1 of a plan, on a GPU",
        ),
        ("verify model.onnx model.int8.onnx --data test.npz --layers", "which layers are at fault"),
    ),
)
@click.argument("reference", metavar="FLOAT", type=click.Path(), required=False)
@click.argument("engine", metavar="ENGINE", type=click.Path(path_type=Path), required=False)
@recipe_options(VerifyRecipe, file=True)
@recipe_options(ModuleSource, name="module")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Save the result as JSON.")
@click.option("--saved", type=click.Path(path_type=Path),
              help="Judge a saved result with these limits; runs nothing.")  # fmt: skip
@report_options
@output_options
def command(
    *,
    reference: str | None,
    engine: Path | None,
    given: Given[VerifyRecipe],
    module: Given[ModuleSource],
    output: Path | None,
    saved: Path | None,
    files: ReportFiles,
    out: Output,
) -> int:
    """Compare ENGINE with the float network FLOAT on the same data, and judge it by limits.

    FLOAT is an ONNX file, or a PyTorch module as package.module:factory.
    """
    if saved is None and (reference is None or engine is None):
        raise OptionError("give the float network and the engine, or --saved FILE.")
    recipe = given.make(reference=_float_network(reference or "", module), engine=engine)
    from trtbuild.jobs.paths import check_paths, named_inputs
    from trtbuild.jobs.verify import Verification, judge_again, verify
    from trtbuild.report.verify import verification_report

    besides = files.besides(*given.files, written=output)
    if saved is not None:
        check_paths(named_inputs(the_saved_result=saved), [], besides)
        found = judge_again(Verification.load(saved), recipe.gate)
    else:
        with out.progress() as progress:
            found = verify(recipe, progress, besides)
    report = verification_report(found)
    out.show(report)
    if output is not None:
        write_text(output, dumps(found.to_json()) + "\n")
    files.write(report)
    return found.ruling.exit_code(is_strict=recipe.strict)


def _float_network(reference: str, module: Given[ModuleSource]) -> Path | ModuleSource:
    if names_function(reference):
        return module.make(target=reference)
    check_no_flags(module, reference)
    return Path(reference)
