"""``trtbuild quantize``: ranges in, the explicit Q/DQ network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

    from trtbuild.plan import Decision

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
              help="Keep layers in float: node name, op type, or glob. Repeatable.")  # fmt: skip
@click.option(
    "--list", "list_only", is_flag=True, help="Only list every node and what becomes of it."
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
        decisions = place(artifact.model, float_patterns).decisions
        out.say(_table(decisions))
        out.result([{"node": d.node, "op_type": d.op_type, "int8": d.quantized, "reason": d.reason}
                    for d in decisions])  # fmt: skip
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


def _table(decisions: Sequence[Decision]) -> Table:
    table = Table("node", "operator", "runs in", "why")
    for decision in decisions:
        table.add_row(
            decision.node,
            decision.op_type,
            "INT8" if decision.quantized else "float",
            decision.reason,
        )
    return table
