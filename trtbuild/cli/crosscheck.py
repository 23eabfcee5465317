"""``trtbuild crosscheck``: two calibrations side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.table import Column, Table

from trtbuild.cli.output import Output, output_options
from trtbuild.files import make_directory, write_text
from trtbuild.records import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Crosscheck, Histogram
    from calibrators.crosscheck import Comparison
    from trtbuild.calibration.thresholds import Thresholds

__all__ = ["command"]

SCHEMA = "trtbuild.crosscheck"
VERSION = 1


@click.command("crosscheck")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--histograms", type=click.Path(path_type=Path),
              help="Calibration file whose histograms tell what each choice costs.")  # fmt: skip
@click.option("--plots", type=click.Path(path_type=Path),
              help="Folder for a picture of every flagged tensor.")  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="List every tensor, not only flagged ones.")
@click.option("--strict", is_flag=True, help="Exit code 1 when a tensor is flagged as far.")
@output_options
def command(
    *,
    first: str,
    second: str,
    histograms: Path | None,
    plots: Path | None,
    show_all: bool,
    strict: bool,
    out: Output,
) -> int:
    """Compare the thresholds of A and B, tensor by tensor.

    Each is a calibration file, a TensorRT calibration cache, or a table of ONNX Runtime; B may also
    be the name of a method, which chooses anew from A's histograms.
    """
    from calibrators import Agreement, crosscheck
    from trtbuild.calibration.thresholds import read_pair, read_thresholds

    one, other = read_pair(first, second)
    statistics = (
        read_thresholds(histograms).histograms
        if histograms is not None
        else one.histograms or other.histograms
    )
    found = crosscheck(one.amaxes, other.amaxes, statistics)
    drawn = _draw(found, one, other, statistics, plots) if plots is not None else []
    out.say(_table(found, one, other, show_all=show_all), *_lines(found, one, other, drawn))
    out.result(_json(found, one, other, drawn))
    return 1 if strict and found.count(Agreement.FAR) else 0


def _table(found: Crosscheck, one: Thresholds, other: Thresholds, *, show_all: bool) -> Table:
    table = Table(Column("tensor", overflow="fold"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("A", "B", "B / A", "bins", "clipped %", "SQNR dB", ""):
        table.add_column(name, justify="right", overflow="fold")
    for entry in found.comparisons if show_all else found.flagged:
        table.add_row(*_row(entry))
    table.caption = escape(f"A: {one.name} ({one.kind}), B: {other.name} ({other.kind})")
    return table


def _row(entry: Comparison) -> tuple[str, ...]:
    clipped, sqnr = "", ""
    if entry.costs is not None:
        clipped = ", ".join(f"{100 * cost.clipped_share:.3f}" for cost in entry.costs)
        sqnr = ", ".join(f"{cost.sqnr_db:.1f}" for cost in entry.costs)
    return (
        escape(entry.tensor),
        f"{entry.first:.5g}",
        f"{entry.second:.5g}",
        f"{entry.ratio:.3f}",
        f"{entry.bins:+.0f}",
        clipped,
        sqnr,
        str(entry.agreement),
    )


def _lines(found: Crosscheck, one: Thresholds, other: Thresholds, drawn: list[Path]) -> list[str]:
    from calibrators import Agreement

    counts = ", ".join(
        f"{found.count(agreement)} {agreement}" for agreement in Agreement if found.count(agreement)
    )
    lines = [f"{len(found.comparisons)} tensors in both: {counts or 'none'}"]
    for side, names in ((one.name, found.only_first), (other.name, found.only_second)):
        if names:
            lines.append(f"only in {side}: {len(names)} tensors, for example '{names[0]}'")
    if drawn:
        lines.append(f"{len(drawn)} pictures in {drawn[0].parent}")
    return [escape(line) for line in lines]


def _draw(
    found: Crosscheck,
    one: Thresholds,
    other: Thresholds,
    histograms: Mapping[str, Histogram],
    folder: Path,
) -> list[Path]:
    from trtbuild.report.histogram_plot import histogram_plot
    from trtbuild.report.svg import standalone

    written = []
    make_directory(folder)
    for number, entry in enumerate(found.flagged):
        if entry.tensor in histograms:
            stem = re.sub(r"[^A-Za-z0-9._-]+", "_", entry.tensor)[:60]
            path = folder / f"{number:03d}_{stem}.svg"
            amaxes = {one.name: entry.first, other.name: entry.second}
            plot = histogram_plot(entry.tensor, histograms[entry.tensor], amaxes)
            write_text(path, standalone(plot))
            written.append(path)
    return written


def _json(
    found: Crosscheck, one: Thresholds, other: Thresholds, drawn: list[Path]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "first": {"name": one.name, "kind": one.kind},
        "second": {"name": other.name, "kind": other.kind},
        "tensors": [
            {**encode(entry), "ratio": encode(entry.ratio), "flagged": entry.flagged}
            for entry in found.comparisons
        ],
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
        "plots": [str(path) for path in drawn],
    }
