"""``trtbuild verify``: is the engine right, and if not, which layer is to blame?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.backends import AUTO
from trtbuild.cli.data_options import data_options
from trtbuild.cli.gate_options import gate_options
from trtbuild.cli.module_options import ModuleOptions, is_module_target, module_options
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.cli.tensorrt_options import opening_options
from trtbuild.errors import OptionError
from trtbuild.files import write_text
from trtbuild.jobs.verify import (
    REFERENCE_BACKEND,
    Diagnosis,
    Verification,
    VerifyRecipe,
    judge_again,
    load_verification,
    verify,
)
from trtbuild.report import text
from trtbuild.report.model import Report
from trtbuild.verification.compare import ComparisonOptions
from trtbuild.verification.scores import load_metric

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trtbuild.pytorch.spec import ModuleSource
    from trtbuild.recipe import DataRecipe
    from trtbuild.verification.gate import Gate

__all__ = ["command"]


@click.command("verify")
@click.argument("reference", metavar="FLOAT", required=False)
@click.argument("engine", metavar="ENGINE", type=click.Path(path_type=Path), required=False)
@data_options
@click.option("--metric", "metrics", multiple=True, metavar="MODULE:FUNCTION",
              help="Your own metric, higher is better. Repeatable.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(min=2), default=5, show_default=True,
              help="The k of the top-k agreement.")  # fmt: skip
@click.option("--worst", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many of the worst images are listed.")  # fmt: skip
@click.option("--layers", is_flag=True, help="Error of every layer: its own and what it inherits.")
@click.option("--sensitivity", is_flag=True, help="What each group of Q/DQ costs alone.")
@click.option("--bisect", is_flag=True, help="When a limit fails: which groups explain it.")
@click.option("--diagnose-images", type=click.IntRange(min=1), default=64, show_default=True,
              help="Images that --layers, --sensitivity and --bisect run on.")  # fmt: skip
@click.option("--diagnose-on", default=REFERENCE_BACKEND, show_default=True, metavar="BACKEND",
              help="Where --sensitivity and --bisect run: tensorrt builds every candidate.")  # fmt: skip
@opening_options
@module_options
@click.option("--backend", default=AUTO, show_default=True, help="What opens ENGINE.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Save the result as JSON.")
@click.option("--saved", type=click.Path(path_type=Path),
              help="Judge a saved result with these limits; runs nothing.")  # fmt: skip
@gate_options
@report_options
@output_options
def command(
    *,
    reference: str | None,
    engine: Path | None,
    data: DataRecipe,
    metrics: tuple[str, ...],
    top_k: int,
    worst: int,
    layers: bool,
    sensitivity: bool,
    bisect: bool,
    diagnose_images: int,
    diagnose_on: str,
    backend: str,
    settings: dict[str, Any],
    batch_size: int,
    output: Path | None,
    saved: Path | None,
    gate: Gate,
    files: ReportFiles,
    module: ModuleOptions,
    out: Output,
) -> int:
    """Compare ENGINE with the float network FLOAT on the same images, and judge it by limits.

    FLOAT is an ONNX file, or a PyTorch module as package.module:factory.
    """
    if saved is not None:
        found = judge_again(load_verification(saved), gate)
    else:
        if reference is None or engine is None:
            raise OptionError("give the float network and the engine, or --saved FILE.")
        recipe = VerifyRecipe(
            reference=_float_network(reference, module),
            engine=engine,
            data=data,
            backend=backend,
            settings=settings,
            batch_size=batch_size,
            options=ComparisonOptions(
                top_k=top_k,
                num_worst=worst,
                metrics={name: load_metric(name) for name in metrics},
            ),
            gate=gate,
            diagnosis=Diagnosis(
                layers=layers,
                sensitivity=sensitivity,
                bisect=bisect,
                num_images=diagnose_images,
                backend=diagnose_on,
            ),
        )
        with out.progress() as progress:
            found = verify(recipe, progress)
    if output is not None:
        write_text(output, json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
    files.write(lambda: _report(found))
    out.say(*_summary(found))
    out.result(found.to_json())
    return 0 if found.verdict.passed else 1


def _float_network(given: str, module: ModuleOptions) -> Path | ModuleSource:
    return replace(module.source, target=given) if is_module_target(given) else Path(given)


def _report(found: Verification) -> Report:
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
    parts: list[RenderableType] = [text.accuracy_table([found.comparison])]
    parts += [*text.score_lines(found.comparison), *text.worst_images(found.comparison)]
    if found.layers is not None:
        parts.append(text.layer_table(found.layers))
    if found.sensitivity is not None:
        parts.append(text.sensitivity_table(found.sensitivity))
    if found.culprits is not None:
        parts += text.culprit_lines(found.culprits)
    return [*parts, *text.verdict_lines(found.verdict, found.limits)]
