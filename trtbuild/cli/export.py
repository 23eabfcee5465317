"""``trtbuild export``: a PyTorch module becomes a checked ONNX file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.export_summary import export_result, export_summary, layer_time_table
from trtbuild.cli.module_options import export_options
from trtbuild.cli.output import Output, output_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.pytorch.spec import ExportSpec

__all__ = ["command"]


@click.command("export")
@click.argument("target")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("model.onnx"),
              show_default=True, help="File to write.")  # fmt: skip
@click.option("--layer-times", is_flag=True, help="Profile the module: time of every layer.")
@export_options
@output_options
def command(
    *,
    target: str,
    output: Path,
    layer_times: bool,
    export: Callable[[str, Path], ExportSpec],
    out: Output,
) -> int:
    """Export TARGET (package.module:factory) to ONNX.

    The factory is a function, a class or an nn.Module; the current directory can be imported from.
    Norms are folded, nodes are named after modules, and the file is compared with the module in
    ONNX Runtime before it appears.
    """
    spec = export(target, output)
    from trtbuild.pytorch import export_from_spec
    from trtbuild.pytorch.profile import profile_layers

    with out.progress() as progress:
        result = export_from_spec(spec, progress)
    out.say(*export_summary(result))
    answer = export_result(result)
    if layer_times:
        times = profile_layers(result.module, spec.inputs)
        out.say(layer_time_table(times))
        answer["layer_times"] = [asdict(time) for time in times]
    out.result(answer)
    return 0
