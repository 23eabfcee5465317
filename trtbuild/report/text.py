"""Results as short tables for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.table import Column, Table

from trtbuild.latency.stats import summarize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trtbuild.latency.measure import Samples
    from trtbuild.search.bisect import Culprits
    from trtbuild.search.budget import StepReport
    from trtbuild.search.sensitivity import GroupSensitivity
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Verdict
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.layers import LayerReport
    from trtbuild.verification.metrics import OutputComparison

__all__ = [
    "accuracy_table",
    "culprit_lines",
    "latency_table",
    "layer_table",
    "score_lines",
    "sensitivity_table",
    "tuning_table",
    "verdict_lines",
    "worst_images",
]


def _table(first: str, *others: str) -> Table:
    """A table whose first column is a name, folded rather than cut off where space is short."""
    table = Table(Column(first, overflow="fold"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in others:
        table.add_column(name, justify="right")
    return table


def accuracy_table(comparisons: Iterable[Comparison]) -> Table:
    """One row an output of each network."""
    comparisons = list(comparisons)
    table = _table("network", "output", "SQNR dB", "cosine", "rel. L2", "max err.", "same top-1")
    for comparison in comparisons:
        for output in comparison.outputs:
            table.add_row(comparison.candidate, output.name, *_figures(output))
    images = comparisons[0].num_images if comparisons else 0
    table.caption = f"against the float network, on {images} images"
    return table


def _figures(output: OutputComparison) -> tuple[str, ...]:
    if output.kind == "integers":
        return (f"{output.equal_percent:.2f} % equal", "", "", f"{output.max_error:g}", "")
    return (
        _spread(output.sqnr_db, ".1f"),
        _value(output.cosine, ".5f"),
        _value(output.relative_l2, ".4f"),
        f"{output.max_error:.3g}",
        _value(output.top1_agreement_percent, ".1f", " %"),
    )


def _value(estimate: Estimate | None, form: str, unit: str = "") -> str:
    return "" if estimate is None else f"{estimate.value:{form}}{unit}"


def _spread(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return ""
    if math.isinf(estimate.low) or math.isinf(estimate.high):
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def score_lines(comparison: Comparison) -> list[str]:
    """Top-1 against labels and the user's metrics, one line each."""
    lines = []
    accuracy = comparison.accuracy
    if accuracy is not None:
        drop = accuracy.drop_points
        lines.append(
            f"top-1 on {accuracy.num_images} labelled images:"
            f" float {accuracy.reference_percent.value:.2f} %,"
            f" {comparison.candidate} {accuracy.candidate_percent.value:.2f} %,"
            f" lost {drop.value:+.2f} points ({drop.low:+.2f} to {drop.high:+.2f})"
        )
    lines.extend(
        f"{metric.name}: float {metric.reference:.4g}, {comparison.candidate}"
        f" {metric.candidate:.4g}, lost {metric.drop.value:+.4g}"
        for metric in comparison.metrics
    )
    return lines


def worst_images(comparison: Comparison, count: int = 3) -> list[str]:
    """Name the worst images of each output, one line an output."""
    return [
        f"worst images of {output.name}: "
        + ", ".join(f"{image.name} ({image.sqnr_db:.1f} dB)" for image in output.worst[:count])
        for output in comparison.outputs
        if output.worst
    ]


def verdict_lines(verdict: Verdict, limits: Sequence[str] | dict[str, float]) -> list[str]:
    """Every failure, then the verdict."""
    lines = [f"[red]{finding}[/red]" for finding in verdict.failures]
    if not verdict.passed:
        return [*lines, "[bold red]FAILED[/bold red]"]
    what = "every limit holds" if limits else "all values are finite; no limit was set"
    return [f"[bold green]PASSED[/bold green]: {what}"]


def layer_table(report: LayerReport, count: int = 12) -> Table:
    """The layers with the largest error of their own."""
    table = _table("layer", "own", "inherited", "total", "weight", "worst channel")
    for layer in report.layers[:count]:
        weight = layer.weight
        table.add_row(
            layer.module or layer.node,
            f"{layer.own_sqnr_db:.1f}",
            f"{layer.inherited_sqnr_db:.1f}",
            f"{layer.total_sqnr_db:.1f}",
            "" if weight is None else f"{weight.sqnr_db:.1f}",
            "" if weight is None else f"{weight.worst_channel}: {weight.worst_channel_sqnr_db:.1f}",
        )
    more = len(report.layers) - count
    table.caption = f"SQNR in dB on {report.num_images} images, worst own error first" + (
        f"; {more} more layers are better" if more > 0 else ""
    )
    return table


def sensitivity_table(groups: Sequence[GroupSensitivity], count: int = 12) -> Table:
    """The groups that cost most."""
    table = _table("group", "MMAC", "alone INT8", "same top-1", "float gains")
    for group in groups[:count]:
        agreement = group.alone_top1_agreement_percent
        table.add_row(
            group.group,
            f"{group.macs / 1e6:.2f}",
            f"{group.alone_sqnr_db:.1f}",
            "" if agreement is None else f"{agreement:.1f} %",
            f"{group.gained_db:+.2f}",
        )
    return table


def tuning_table(steps: Sequence[StepReport], num_images: int) -> Table:
    """What each step of the search for a budget did and bought."""
    table = _table("step", "what", "SQNR dB", "same top-1", "top-1 lost", "runs")
    table.columns[1].justify, table.columns[1].overflow = "left", "fold"
    for step in steps:
        agreement, drop = step.top1_agreement_percent, step.top1_drop_points
        table.add_row(
            step.step,
            step.what,
            f"{step.sqnr_db:.1f}",
            "" if agreement is None else f"{agreement:.1f} %",
            "" if drop is None else f"{drop:+.1f}",
            str(step.num_evaluations),
        )
    table.caption = f"searched on {num_images} calibration images; judged below on others"
    return table


def culprit_lines(culprits: Culprits) -> list[str]:
    """What bisecting found, in words."""
    runs = f"({culprits.num_evaluations} evaluations)"
    if culprits.passes_quantized:
        return [f"bisecting: on these images no limit fails {runs}"]
    if not culprits.passes_float:
        return [
            f"bisecting: quantization is not to blame; the limits fail with all in float too {runs}"
        ]
    return [
        f"bisecting: {len(culprits.groups)} group(s) explain the failure {runs}; in float they let it pass:",
        *(f"  {name}" for name in culprits.groups),
    ]


def latency_table(samples: Iterable[Samples]) -> Table:
    """One row a session and batch size."""
    table = _table(
        "latency, ms", "batch", "median", "p90", "p95", "p99", "mean", "images/s", "runs"
    )
    samples = list(samples)
    for one in samples:
        found = summarize(one)
        values = (found.median_ms, found.p90_ms, found.p95_ms, found.p99_ms)
        table.add_row(
            found.name,
            str(found.batch_size),
            *(f"{value:.3f}" for value in values),
            _spread(found.mean_ms, ".3f"),
            f"{found.throughput_per_s:.0f}",
            str(found.num_samples),
        )
    if samples:
        table.caption = samples[0].clock
    return table
