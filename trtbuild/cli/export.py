"""``trtbuild export``: a PyTorch module becomes a checked ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.export_summary import export_result, export_summary
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
@export_options
@output_options
def command(
    *, target: str, output: Path, export: Callable[[str, Path], ExportSpec], out: Output
) -> int:
    """Export TARGET (package.module:factory) to ONNX.

    The factory is a function, a class or an nn.Module; the current directory can be imported from.
    Norms are folded, nodes are named after modules, and the file is compared with the module in
    ONNX Runtime before it appears.
    """
    spec = export(target, output)
    from trtbuild.pytorch import export_from_spec

    with out.progress() as progress:
        result = export_from_spec(spec, progress)
    out.say(*export_summary(result))
    out.result(export_result(result))
    return 0
