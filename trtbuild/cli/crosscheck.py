"""``trtbuild crosscheck``: two calibrations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtbuild.cli.output import Output, output_options
from trtbuild.cli.report_options import ReportFiles, report_options
from trtbuild.records import encode
from trtbuild.report.model import (
    Check,
    Line,
    Outcome,
    Plots,
    Report,
    Section,
    Table,
    names,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calibrators import Crosscheck, Histogram
    from calibrators.crosscheck import Comparison
    from trtbuild.calibration.thresholds import Thresholds
    from trtbuild.plots.data import Plot

__all__ = ["command"]

SCHEMA = "trtbuild.crosscheck"
VERSION = 1


@click.command("crosscheck")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--histograms", type=click.Path(path_type=Path),
              help="Calibration file whose histograms tell what each choice costs.")  # fmt: skip
@click.option("--plots", type=click.Path(path_type=Path),
              help="Folder for an SVG of every flagged tensor.")  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="List every tensor, not only flagged ones.")
@click.option("--strict", is_flag=True, help="Exit code 1 when a tensor is flagged as far.")
@report_options
@output_options
def command(
    *,
    first: str,
    second: str,
    histograms: Path | None,
    plots: Path | None,
    show_all: bool,
    strict: bool,
    files: ReportFiles,
    out: Output,
) -> int:
    """Compare the thresholds of A and B, tensor by tensor.

    Each is a calibration file, a TensorRT calibration cache, or a table of ONNX Runtime; B may also
    be the name of a method, which chooses anew from A's histograms.
    """
    from calibrators import crosscheck
    from trtbuild.calibration.thresholds import read_pair, read_thresholds
    from trtbuild.plots.calibration import plot_folder, write_plots

    one, other = read_pair(first, second)
    statistics = (
        read_thresholds(histograms).histograms
        if histograms is not None
        else one.histograms or other.histograms
    )
    found = crosscheck(one.amaxes, other.amaxes, statistics)
    drawn = _plots(found, one, other, statistics)
    written = write_plots(drawn, plot_folder(plots)) if plots is not None else []
    listed = found.comparisons if show_all else found.flagged
    report = Report(
        title=f"{one.name} against {other.name}",
        facts={"A": f"{one.name} ({one.kind})", "B": f"{other.name} ({other.kind})"},
        sections=(
            Section(
                "Thresholds",
                (_table(listed), *_lines(found, one, other, written), Plots(tuple(drawn.values()))),
            ),
        ),
        checks=tuple(map(_check, found.comparisons)) if strict else (),
        data=_json(found, one, other, written),
    )
    files.write(report)
    out.show(report)
    return 0 if report.passed else 1


def _check(entry: Comparison) -> Check:
    from calibrators import Agreement

    return Check(
        suite="thresholds",
        subject="thresholds",
        what=entry.tensor,
        outcome=Outcome.FAILED if entry.agreement is Agreement.FAR else Outcome.PASSED,
        text=f"{entry.tensor}: {entry.first:.5g} and {entry.second:.5g}, {entry.agreement}",
        is_expected=True,
    )


def _table(entries: Sequence[Comparison]) -> Table:
    headings = ("A", "B", "B / A", "bins", "clipped %", "SQNR, dB", "")
    return Table((*names("tensor"), *numbers(*headings)), tuple(map(_row, entries)))


def _row(entry: Comparison) -> tuple[str, ...]:
    clipped, sqnr = "", ""
    if entry.costs is not None:
        clipped = ", ".join(f"{100 * cost.clipped_share:.3f}" for cost in entry.costs)
        sqnr = ", ".join(f"{cost.sqnr_db:.1f}" for cost in entry.costs)
    return (
        entry.tensor,
        f"{entry.first:.5g}",
        f"{entry.second:.5g}",
        f"{entry.ratio:.3f}",
        f"{entry.bins:+.0f}",
        clipped,
        sqnr,
        str(entry.agreement),
    )


def _lines(found: Crosscheck, one: Thresholds, other: Thresholds, drawn: list[Path]) -> list[Line]:
    from calibrators import Agreement

    counts = ", ".join(
        f"{found.count(agreement)} {agreement}" for agreement in Agreement if found.count(agreement)
    )
    lines = [f"{len(found.comparisons)} tensors in both: {counts or 'none'}"]
    for side, alone in ((one.name, found.only_first), (other.name, found.only_second)):
        if alone:
            lines.append(f"only in {side}: {len(alone)} tensors, for example '{alone[0]}'")
    if drawn:
        lines.append(f"{len(drawn)} plots in {drawn[0].parent}")
    return [Line(line) for line in lines]


def _plots(
    found: Crosscheck, one: Thresholds, other: Thresholds, histograms: Mapping[str, Histogram]
) -> dict[str, Plot]:
    """A plot of every flagged tensor whose histogram is there, by file name."""
    from trtbuild.plots.calibration import histogram_plot, plot_file_name

    return {
        plot_file_name(number, entry.tensor): histogram_plot(
            entry.tensor,
            histograms[entry.tensor],
            {one.name: entry.first, other.name: entry.second},
        )
        for number, entry in enumerate(found.flagged)
        if entry.tensor in histograms
    }


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
