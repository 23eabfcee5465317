"""``trtbuild calibrate``: ranges as a file; ``trtbuild calibrate merge``: parts put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.calibration import calibrate as calibrate_stage
from trtbuild.calibration import merge_files
from trtbuild.cli.calibrate_options import calibrate_options
from trtbuild.cli.data_options import data_options
from trtbuild.cli.output import Output, output_options
from trtbuild.data import calibration_source
from trtbuild.files import write_bytes
from trtbuild.model import input_specs
from trtbuild.pipeline import load, prepare
from trtbuild.quantization import watched_tensors

if TYPE_CHECKING:
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

    `calibrate MODEL --data ...` runs the network; `calibrate merge PART...` puts shards together.
    """


@command.command("run")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Calibration file."
)
@data_options
@calibrate_options
@click.option("--shard", help="Only part I of N of the data, as I/N; merge the parts afterwards.")
@output_options
def run(
    *,
    model: Path,
    output: Path,
    data: DataRecipe,
    calibrate: CalibrateOptions,
    shard: str | None,
    out: Output,
) -> None:
    """Calibrate MODEL on all the data given, and write the ranges and their histograms."""
    artifact = prepare(load(model))
    source = calibration_source(data, input_specs(artifact.source), shard)
    with out.progress() as progress:
        artifact = calibrate_stage(
            artifact, source, watched_tensors(artifact.model), calibrate, progress
        )
    assert artifact.calibration is not None
    _write(artifact.calibration, output, out)


@command.command("merge")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Calibration file."
)
@output_options
def merge(*, parts: tuple[Path, ...], output: Path, out: Output) -> None:
    """Put the PARTS of a sharded calibration together; equal to one run, byte for byte."""
    _write(merge_files(parts), output, out)


def _write(calibration: Calibration, output: Path, out: Output) -> None:
    write_bytes(output, calibration.to_bytes(histograms=True))
    samples = calibration.provenance.get("num_samples", "?")
    out.say(f"{output}: {len(calibration.ranges)} tensors, {samples} samples, {calibration.method}")
    out.result({"file": str(output), "tensors": {n: r.amax for n, r in calibration.ranges.items()}})
