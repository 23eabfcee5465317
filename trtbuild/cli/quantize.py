"""``trtbuild quantize``: ranges in, the explicit Q/DQ network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from trtbuild.calibration import load_calibration
from trtbuild.cli.output import Output, output_options
from trtbuild.errors import OptionError
from trtbuild.jobs.engine import load, prepare
from trtbuild.model import write_model
from trtbuild.quantization import place, portable_form
from trtbuild.quantization import quantize as quantize_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.plan import Placement

__all__ = ["command"]


@click.command("quantize")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="File from `trtbuild calibrate`."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="ONNX file to write.")
@click.option("--form", type=click.Choice(["tensorrt", "onnxruntime"]), default="tensorrt", show_default=True,
              help="TensorRT's explicit Q/DQ, or what ONNX Runtime runs in integer kernels.")  # fmt: skip
@click.option("--float", "float_patterns", multiple=True, metavar="PATTERN",
              help="Keep groups of Q/DQ in float: node name, op type, or glob. Repeatable.")  # fmt: skip
@click.option(
    "--list",
    "list_only",
    is_flag=True,
    help="Only list nodes and groups of Q/DQ, and what becomes of them.",
)
@output_options
def command(
    *,
    model: Path,
    calibration: Path | None,
    output: Path | None,
    form: str,
    float_patterns: tuple[str, ...],
    list_only: bool,
    out: Output,
) -> None:
    """Write MODEL (an ONNX file) with Q/DQ from a calibration."""
    artifact = prepare(load(model))
    if list_only:
        listed = _listed(place(artifact.model, float_patterns))
        out.say(_table(listed))
        out.result(listed)
        return
    if calibration is None or output is None:
        raise OptionError("give --calibration FILE and -o FILE, or --list.")
    ranges = load_calibration(calibration, artifact.source)
    artifact = quantize_stage(artifact.with_calibration(ranges), float_patterns)
    assert artifact.quantized is not None
    quantized = artifact.quantized if form == "tensorrt" else portable_form(artifact)
    written = write_model(quantized, output)
    out.say(f"{output}: {artifact.history[-1].summary}")
    out.result({"files": [str(file) for file in written], **artifact.history[-1].details})


def _listed(placement: Placement) -> list[dict[str, Any]]:
    """Every node with the group of its Q/DQ, then the groups that ONNX Runtime's form alone has."""
    kinds = {group.name: group.kind for group in placement.groups if group.in_tensorrt_form}
    nodes = [
        {"node": d.node, "op_type": d.op_type, "int8": d.quantized, "reason": d.reason,
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
    table = Table("node", "operator", "group of Q/DQ", "runs in", "why")
    for one in listed:
        precision = "INT8" if one["int8"] else "float"
        table.add_row(one["node"], one["op_type"], one["group"] or "", precision, one["reason"])
    return table
