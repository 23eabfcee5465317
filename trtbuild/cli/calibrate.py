"""``trtbuild calibrate``: ranges as a file; ``trtbuild calibrate merge``: parts put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calibrators.cache import CalibrationCache, version_digits
from trtbuild.calibration import AS_TENSORRT, float_tensors, merge_files
from trtbuild.calibration import calibrate as calibrate_stage
from trtbuild.cli.calibrate_options import calibrate_options
from trtbuild.cli.calibrate_summary import (
    agreement_lines,
    all_choices,
    finite,
    method_table,
    range_table,
)
from trtbuild.cli.data_options import data_options
from trtbuild.cli.output import Output, output_options
from trtbuild.data import calibration_source
from trtbuild.errors import OptionError
from trtbuild.files import make_directory, write_bytes
from trtbuild.jobs.engine import load, prepare
from trtbuild.model import input_specs
from trtbuild.quantization import watched_tensors
from trtbuild.report.calibration_plots import plot_calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Calibration
    from trtbuild.calibration import CalibrateOptions
    from trtbuild.data import DataRecipe

__all__ = ["command"]


class _DefaultsToRun(click.Group):
    """``calibrate MODEL`` is short for ``calibrate run MODEL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("calibrate", cls=_DefaultsToRun)
def command() -> None:
    """Find the range of every tensor that will be INT8.

    `calibrate MODEL --data ...` runs the network (its options: `calibrate run --help`);
    `calibrate merge PART...` puts the parts of a sharded calibration together.
    """


def _file_options(function: Any) -> Any:
    output = click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
                          help="Calibration file.")  # fmt: skip
    cache = click.option("--cache", type=click.Path(path_type=Path),
                         help="Write the same scales as a TensorRT calibration cache.")  # fmt: skip
    version = click.option("--tensorrt-version", default="10.16.1", show_default=True,
                           help="In the cache's header; TensorRT skips other versions.")  # fmt: skip
    plot = click.option("--plot", type=click.Path(path_type=Path), metavar="DIR",
                        help="Draw every tensor's histogram with the thresholds of all methods.")  # fmt: skip
    methods = click.option("--all-methods", is_flag=True,
                           help="Show what every method would choose, and what it would cost.")  # fmt: skip
    return output(cache(version(plot(methods(output_options(function))))))


@command.command("run")
@click.argument("model", type=click.Path(path_type=Path))
@data_options
@calibrate_options
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
              help="Matters to entropy-tensorrt alone: no other rule depends on it.")  # fmt: skip
@click.option("--all-tensors", is_flag=True,
              help="Watch every float tensor of the graph as given, as TensorRT 10 does.")  # fmt: skip
@click.option(
    "--shard", metavar="I/N", help="Only part I of N of the data; merge the parts afterwards."
)
@_file_options
def run(
    *,
    model: Path,
    data: DataRecipe,
    calibrate: CalibrateOptions,
    batch_size: int,
    all_tensors: bool,
    shard: str | None,
    **files: Any,
) -> None:
    """Calibrate MODEL on all the data given, and write the ranges and their histograms."""
    if shard is not None and calibrate.method == AS_TENSORRT:
        raise OptionError(
            f"{AS_TENSORRT} depends on the order of all batches, so it has no parts to merge; use "
            "entropy, or leave --shard out."
        )
    artifact = load(model)
    source = calibration_source(data, input_specs(artifact.source), shard)
    if all_tensors:
        tensors = float_tensors(artifact.model)
    else:
        artifact = prepare(artifact)
        tensors = watched_tensors(artifact.model)
    options = replace(calibrate, batch_size=batch_size, preprocess=data.preprocess_text)
    out: Output = files["out"]
    with out.progress() as progress:
        artifact = calibrate_stage(artifact, source, tensors, options, progress)
    assert artifact.calibration is not None
    _write(artifact.calibration, artifact.history[-1].details, **files)


@command.command("merge")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@_file_options
def merge(*, parts: tuple[Path, ...], **files: Any) -> None:
    """Put the PARTS of a sharded calibration together; equal to one run, byte for byte."""
    _write(merge_files(parts), {}, **files)


def _write(
    calibration: Calibration,
    details: Mapping[str, Any],
    *,
    output: Path,
    cache: Path | None,
    tensorrt_version: str,
    plot: Path | None,
    all_methods: bool,
    out: Output,
) -> None:
    write_bytes(output, calibration.to_bytes(histograms=True))
    written = [output]
    if cache is not None:
        text = CalibrationCache.from_calibration(calibration, version_digits(tensorrt_version))
        write_bytes(cache, text.to_bytes())
        written.append(cache)
    if plot is not None:
        written.extend(plot_calibration(calibration, make_directory(plot)))
    spread, agreement = details.get("spread", {}), details.get("until_stable")
    out.say(method_table(calibration) if all_methods else range_table(calibration, spread))
    if agreement is not None:
        out.say(agreement_lines(agreement))
    out.say(*(f"wrote {file}" for file in written[:2]))
    out.result(
        {
            "files": [str(file) for file in written],
            "method": calibration.method,
            "num_samples": int(calibration.provenance["num_samples"]),
            "amax": {name: finite(given.amax) for name, given in calibration.ranges.items()},
            "spread": spread,
            "until_stable": agreement,
            "methods": all_choices(calibration) if all_methods else None,
        }
    )
