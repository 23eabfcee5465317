"""``trtbuild engine``: the whole job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.artifact import Record
from trtbuild.backends import AUTO
from trtbuild.cli.calibrate_options import calibrate_options
from trtbuild.cli.data_options import data_options
from trtbuild.cli.engine_report import engine_report
from trtbuild.cli.engine_summary import engine_summary
from trtbuild.cli.export_summary import export_result, export_summary
from trtbuild.cli.gate_options import gate_options
from trtbuild.cli.module_options import export_options, is_module_target
from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.cli.tensorrt_options import tensorrt_options
from trtbuild.errors import OptionError
from trtbuild.files import make_directory
from trtbuild.jobs.engine import build_engine
from trtbuild.latency.measure import MeasureOptions
from trtbuild.manifest import read_manifest
from trtbuild.recipe import EngineRecipe
from trtbuild.search.stage import TuneOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbuild.calibration import CalibrateOptions
    from trtbuild.data import DataRecipe
    from trtbuild.pytorch.spec import ExportSpec
    from trtbuild.verification.gate import Gate

__all__ = ["command"]


@click.command("engine")
@click.argument("model")
@click.option("--int8", is_flag=True, help="Build in INT8.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out"), show_default=True,
              help="Folder for the results; made if absent.")  # fmt: skip
@data_options
@calibrate_options
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="Use these ranges; do not calibrate."
)
@click.option("--float", "float_patterns", multiple=True, metavar="PATTERN",
              help="Keep layers in float: node name, op type, or glob. Repeatable.")  # fmt: skip
@click.option("--backend", default=AUTO, show_default=True, help="tensorrt, onnxruntime, or auto.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
              help="Of verification, and of calibration inside TensorRT.")  # fmt: skip
@click.option("--latency/--no-latency", default=True, show_default=True, help="Measure latency.")
@click.option("--tune/--no-tune", default=True, show_default=True,
              help="With an accuracy limit: search for the cheapest way to meet it.")  # fmt: skip
@click.option("--search-cache", type=click.Path(path_type=Path),
              help="Folder that keeps the search's results, to go on after an interruption.")  # fmt: skip
@tensorrt_options
@export_options
@gate_options
@report_options
@output_options
def command(
    *,
    model: str,
    int8: bool,
    output: Path,
    data: DataRecipe,
    calibrate: CalibrateOptions,
    calibration: Path | None,
    float_patterns: tuple[str, ...],
    backend: str,
    batch_size: int,
    latency: bool,
    tune: bool,
    search_cache: Path | None,
    settings: dict[str, Any],
    export: Callable[[str, Path], ExportSpec],
    gate: Gate,
    files: ReportFiles,
    out: Output,
) -> int:
    """Build a verified engine from the float network MODEL, in INT8, FP16 or both.

    MODEL is an ONNX file, or a PyTorch module as package.module:factory, which is exported first.

    The network is prepared, calibrated on --data, quantized, built for the backend at hand, and
    compared with the float network on data that calibration has not seen. Limits on accuracy
    (--max-top1-drop, --min-sqnr, ...) are a budget: when the plain network does not meet it, the
    cheapest way to do so is searched for on the calibration data.
    """
    if not (int8 or settings.get("fp16")):
        raise OptionError("say which precision to build: --int8, --fp16, or both.")
    path, earlier = (
        _exported(model, output, export, out) if is_module_target(model) else (Path(model), ())
    )
    recipe = EngineRecipe(
        model=path,
        earlier=earlier,
        output=output,
        int8=int8,
        data=data,
        calibrate=calibrate,
        calibration=calibration,
        float_patterns=float_patterns,
        backend=backend,
        settings=settings,
        batch_size=batch_size,
        gate=gate,
        tune=TuneOptions(directory=search_cache) if tune else None,
        latency=MeasureOptions(duration_ms=2000) if latency else None,
    )
    with out.progress() as progress:
        result = build_engine(recipe, progress)
    files.write(lambda: engine_report(result))
    out.say(*engine_summary(result))
    out.result(read_manifest(result.manifest))
    return 0 if result.passed else 1


def _exported(
    target: str, output: Path, export: Callable[[str, Path], ExportSpec], out: Output
) -> tuple[Path, tuple[Record, ...]]:
    """Export a PyTorch module into the folder `output`; the ONNX file, and what was done for it."""
    path = make_directory(output) / f"{target.rpartition(':')[2].rpartition('.')[2]}.onnx"
    spec = export(target, path)
    from trtbuild.pytorch import export_from_spec

    with out.progress() as progress:
        result = export_from_spec(spec, progress)
    out.say(*export_summary(result))
    details = export_result(result)
    return path, (Record("export", f"exported from '{target}'", details),)
