"""``trtbuild quantize``: ranges in, the explicit Q/DQ network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.recipes import QuantizeRecipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.plan import Placement
    from trtbuild.report.model import Table

__all__ = ["command"]


@click.command(
    "quantize",
    cls=SectionedCommand,
    examples=(
        (
            "quantize model.onnx --calibration model.calibration.json -o model.int8.onnx",
            "TensorRT's form",
        ),
        (
            "quantize model.onnx --calibration model.calibration.json --form onnxruntime -o cpu.onnx",
            "for CPUs",
        ),
        (
            "quantize model.onnx --calibration model.calibration.json --float Gemm -o mixed.onnx",
            "some in float",
        ),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@recipe_options(QuantizeRecipe, file=True)
@click.option(
    "--list",
    "list_only",
    is_flag=True,
    help="Only list nodes and groups of Q/DQ, and what becomes of them.",
)
@output_options
def command(*, model: Path, given: Given[QuantizeRecipe], list_only: bool, out: Output) -> None:
    """Write MODEL (an ONNX file) with Q/DQ from a calibration."""
    recipe = given.make(model=model)
    from trtbuild.jobs.quantize import decide, quantize_file
    from trtbuild.report.model import Line, Report, Section

    if list_only:
        listed = _listed(decide(recipe))
        sections = (Section("Nodes and groups of Q/DQ", (_table(listed),)),)
        out.show(Report(title=f"INT8 in {model.name}", sections=sections, data=listed))
        return
    done = quantize_file(recipe)
    out.show(
        Report(
            title=f"{model.name} in INT8",
            notes=(Line(f"{recipe.output}: {done.record.summary}"),),
            data={"files": done.files, **done.record.details},
        )
    )


def _listed(placement: Placement) -> list[dict[str, Any]]:
    """Every node with the group of its Q/DQ, then the groups that ONNX Runtime's form alone has."""
    kinds = {group.name: group.kind for group in placement.groups if group.in_tensorrt_form}
    nodes = [
        {"node": d.node, "op_type": d.op_type, "int8": d.int8, "reason": d.reason,
         "group": kinds.get(d.node)}
        for d in placement.decisions
    ]  # fmt: skip
    others = [
        {"node": g.name, "op_type": g.op_type, "int8": g.int8, "reason": g.reason, "group": g.kind}
        for g in placement.groups
        if not g.in_tensorrt_form
    ]
    return [*nodes, *others]


def _table(listed: Sequence[dict[str, Any]]) -> Table:
    from trtbuild.report.model import Table, names

    rows = tuple(
        (
            one["node"],
            one["op_type"],
            one["group"] or "",
            "INT8" if one["int8"] else "float",
            one["reason"],
        )
        for one in listed
    )
    return Table(names("node", "operator", "group of Q/DQ", "runs in", "why"), rows)
