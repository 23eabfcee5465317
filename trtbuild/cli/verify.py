"""``trtbuild verify``: is the engine right, and if not, which layer is to blame?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.option_fields import Given, SectionedCommand, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.errors import OptionError
from trtbuild.files import write_text
from trtbuild.options.values import names_function
from trtbuild.pytorch.spec import ModuleSource
from trtbuild.recipe import VerifyRecipe

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trtbuild.jobs.verify import Verification
    from trtbuild.report.model import Report

__all__ = ["command"]


@click.command("verify", cls=SectionedCommand)
@click.argument("reference", metavar="FLOAT", required=False)
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
    """Compare ENGINE with the float network FLOAT on the same images, and judge it by limits.

    FLOAT is an ONNX file, or a PyTorch module as package.module:factory.
    """
    if saved is None and (reference is None or engine is None):
        raise OptionError("give the float network and the engine, or --saved FILE.")
    recipe = given.make(reference=_float_network(reference or "", module), engine=engine)
    from trtbuild.jobs.verify import judge_again, load_verification, verify

    if saved is not None:
        found = judge_again(load_verification(saved), recipe.gate)
    else:
        with out.progress() as progress:
            found = verify(recipe, progress)
    if output is not None:
        write_text(output, json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
    files.write(lambda: _report(found))
    out.say(*_summary(found))
    out.result(found.to_json())
    return 0 if found.verdict.passed else 1


def _float_network(reference: str, module: Given[ModuleSource]) -> Path | ModuleSource:
    return module.make(target=reference) if names_function(reference) else Path(reference)


def _report(found: Verification) -> Report:
    from trtbuild.report.model import Report

    return Report(
        title=f"{found.engine} against {found.reference}",
        facts={"engine": found.engine, "float network": found.reference, "data": found.data},
        verdicts={found.engine: found.verdict},
        comparisons=(found.comparison,),
        layers=found.layers,
        sensitivity=found.sensitivity or (),
        culprits=found.culprits,
    )


def _summary(found: Verification) -> list[RenderableType]:
    from trtbuild.report import text

    parts: list[RenderableType] = [text.accuracy_table([found.comparison])]
    parts += [*text.score_lines(found.comparison), *text.worst_images(found.comparison)]
    if found.layers is not None:
        parts.append(text.layer_table(found.layers))
    if found.sensitivity is not None:
        parts.append(text.sensitivity_table(found.sensitivity))
    if found.culprits is not None:
        parts += text.culprit_lines(found.culprits)
    return [*parts, *text.verdict_lines(found.verdict, found.limits)]
