"""What ``trtbuild engine`` shows at the end: coverage, figures, latency, files, verdict."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table

from trtbuild.cli.calibrate_summary import agreement_lines
from trtbuild.jobs.compare import FAR_SQNR_DB
from trtbuild.latency.stats import ratio, summarize
from trtbuild.model.operators import WEIGHTED
from trtbuild.report.text import layer_table, tuning_table
from trtbuild.result import ENGINE, FLOAT, TENSORRT_FORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from trtbuild.plan import Decision
    from trtbuild.result import EngineResult
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.intervals import Estimate

__all__ = ["engine_summary"]


_TITLES = {FLOAT: "float", TENSORRT_FORM: "TensorRT form", ENGINE: "engine"}


def engine_summary(result: EngineResult) -> list[RenderableType]:
    """The summary as tables and lines, the verdict last."""
    parts: list[RenderableType] = [
        f"backend: {result.why_backend}",
        *_notes(result),
        *_without_effect(result),
        _coverage(result),
    ]
    if result.tuned is not None:
        parts.append(tuning_table(result.tuned.steps, result.tuned.num_images))
    parts.append(_figures(result))
    if result.layers is not None:
        far = f"an output lies below {FAR_SQNR_DB:g} dB; these layers cost most (see --float)"
        parts.extend([far, layer_table(result.layers, count=8)])
    if result.latency:
        parts.append(_latency(result))
    parts.append(_files(result))
    for name, verdict in result.verdicts.items():
        parts.extend(f"[red]{_TITLES[name]}: {finding}[/red]" for finding in verdict.failures)
    parts.append(_verdict(result))
    return parts


def _notes(result: EngineResult) -> Iterator[str]:
    """What a user should know about the ranges."""
    for record in result.artifact.history:
        if record.stage == "spot check":
            yield f"note: {record.summary}"
        elif record.details.get("until_stable") is not None:
            yield agreement_lines(record.details["until_stable"])


def _without_effect(result: EngineResult) -> list[str]:
    names = result.engine.details.get("without_effect")
    if not names:
        return []
    text = ", ".join(name.replace("_", "-") for name in names)
    return [f"[yellow]note[/yellow]: without effect on {result.engine.backend}: {text}"]


def _coverage(result: EngineResult) -> str:
    if result.artifact.quantized is None:
        return "INT8: not asked for"
    weighted = [d for d in result.artifact.decisions if d.op_type in WEIGHTED]
    done = [d for d in weighted if d.quantized]
    line = f"INT8: {len(done)} of {len(weighted)} layers with weights"
    reasons = Counter(_reason(d) for d in weighted if not d.quantized)
    return line + "".join(
        f"\n  float: {count} x {reason}" for reason, count in reasons.most_common()
    )


def _reason(decision: Decision) -> str:
    return f"{decision.op_type}: {decision.reason}"


def _figures(result: EngineResult) -> Table:
    table = Table("network", "output", "SQNR dB", "cosine", "rel. L2", "same top-1", "top-1")
    for name, comparison in result.comparisons.items():
        for output in comparison.outputs:
            table.add_row(
                _TITLES[name],
                output.name,
                _number(output.sqnr_db, ".1f"),
                _number(output.cosine, ".5f"),
                _number(output.relative_l2, ".4f"),
                _number(output.top1_agreement_percent, ".1f", " %"),
                _top1(comparison, output.name),
            )
    images = next(iter(result.comparisons.values())).num_images
    seen = (
        "that calibration did not see"
        if result.kept_apart
        else "which the calibration may have seen"
    )
    table.caption = f"against the float network, on {images} samples {seen}"
    return table


def _number(estimate: Estimate | None, form: str, unit: str = "") -> str:
    return "" if estimate is None else f"{estimate.value:{form}}{unit}"


def _top1(comparison: Comparison, output: str) -> str:
    accuracy = comparison.accuracy
    if accuracy is None or accuracy.output != output:
        return ""
    return f"{accuracy.reference_percent.value:.2f} -> {accuracy.candidate_percent.value:.2f}"


def _latency(result: EngineResult) -> Table:
    table = Table("latency, ms", "median", "p90", "p99", "against float")
    for name, samples in result.latency.items():
        found = summarize(samples)
        relation = ""
        if name == ENGINE:
            times = ratio(result.latency[FLOAT], samples)
            relation = (
                f"{1 / times.value:.2f} x as fast ({1 / times.high:.2f} to {1 / times.low:.2f})"
            )
        row = (f"{value:.3f}" for value in (found.median_ms, found.p90_ms, found.p99_ms))
        table.add_row(_TITLES[name], *row, relation)
    first = result.latency[FLOAT]
    table.caption = f"batch {first.batch_size}, in turns in one process; {first.clock}"
    return table


def _files(result: EngineResult) -> Table:
    table = Table("file", "what it is", box=None, show_header=False)
    folder = result.manifest.parent
    for name, what in {**result.files, result.manifest.name: "the record of this build"}.items():
        table.add_row(str(folder / name), what)
    return table


def _verdict(result: EngineResult) -> str:
    judged = sum(len(verdict.findings) for verdict in result.verdicts.values())
    if not result.passed:
        return "[bold red]FAILED[/bold red]: the engine does not meet its limits"
    what = f"all {judged} checks hold" if judged else "no limit was set"
    return f"[bold green]PASSED[/bold green]: {what}"
