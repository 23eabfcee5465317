"""The speed of a network, as parts of a report: latencies, their distribution, comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.latency.layer_times import plain_name
from trtbuild.latency.regress import Answer
from trtbuild.latency.stats import summarize
from trtbuild.plots.data import Distribution
from trtbuild.report.accuracy import interval, outcome_of
from trtbuild.report.cards import speed_card
from trtbuild.report.model import (
    Card,
    Check,
    Line,
    Outcome,
    Plots,
    Report,
    Section,
    Table,
    Tone,
    details,
    names,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbuild.jobs.bench import BenchResult
    from trtbuild.latency.conditions import Device
    from trtbuild.latency.layer_times import LayerTimes
    from trtbuild.latency.limits import SpeedFinding
    from trtbuild.latency.measure import Samples
    from trtbuild.latency.regress import LatencyVerdict

__all__ = ["bench_report", "latency_section", "speed_checks"]

_NUM_LAYERS = 8
_OUTCOMES = {Answer.SLOWER: Outcome.FAILED, Answer.CANNOT_TELL: Outcome.UNKNOWN}


def bench_report(title: str, result: BenchResult, files: Mapping[str, str] | None = None) -> Report:
    """Return the report of ``trtbuild bench``.

    Args:
        title: what was timed.
        result: its latencies.
        files: path -> description, for every written file.
    """
    ruling = result.ruling
    checks = (*map(_check, result.verdicts), *speed_checks("latency", result.speed))
    return Report(
        title=title,
        cards=tuple(_cards(result)),
        facts={"inputs": result.data},
        notes=tuple(Line(f"note: {one}", Tone.NOTE) for one in result.conditions.remarks()),
        sections=(
            latency_section([(one.name, one) for one in result.samples], device=result.device),
            _layers(result.layers),
        ),
        files=files or {},
        checks=checks,
        verdict="" if ruling is None else ruling.why,
        ruling="" if ruling is None else ruling.word,
        data=result.record.to_json(),
    )


def _cards(result: BenchResult) -> Iterator[Card]:
    """The speed at each batch size."""
    for verdict in result.verdicts:
        title = "Speed" if len(result.verdicts) == 1 else f"Speed, batch {verdict.batch_size}"
        yield speed_card(verdict, title, result.speed)


def _layers(found: LayerTimes | None) -> Section:
    """The time of each layer, the slowest first."""
    if found is None:
        return Section("Layers", ())
    ordered = sorted(found.layers.items(), key=lambda one: -one[1])
    rows = tuple(
        (plain_name(name), f"{ms:.4f}", f"{100.0 * ms / found.total:.1f} %") for name, ms in ordered
    )
    columns = (*names("layer"), *numbers("ms", "share"))
    return Section("Layers", (Table(columns, rows, f"by {found.source}", num_shown=_NUM_LAYERS),))


def _check(verdict: LatencyVerdict) -> Check:
    outcome = _OUTCOMES.get(verdict.answer, Outcome.PASSED)
    against = f"against {verdict.base}, batch {verdict.batch_size}"
    return Check("latency", "latency", against, outcome, str(verdict))


def speed_checks(subject: str, findings: Sequence[SpeedFinding]) -> tuple[Check, ...]:
    """Return a check for each limit on speed.

    Args:
        subject: what was timed.
        findings: findings for its limits.
    """
    return tuple(
        Check(
            "latency" if subject == "latency" else f"latency of {subject}",
            subject,
            finding.what,
            outcome_of(finding),
            str(finding),
        )
        for finding in findings
    )


def latency_section(
    samples: Sequence[tuple[str, Samples]],
    lines: Sequence[Line] = (),
    device: Device | None = None,
) -> Section:
    """Return the latencies.

    Args:
        samples: name of a network, and its latencies.
        lines: conclusions from them.
        device: where they were measured.
    """
    if not samples:
        return Section("Latency", ())
    rows = []
    for name, one in samples:
        found = summarize(one)
        rows.append(
            (
                name,
                str(found.batch_size),
                f"{found.median_ms:.3f}",
                _percentile(found.p90_ms, 0.90, found.num_samples),
                _percentile(found.p99_ms, 0.99, found.num_samples),
                f"{found.throughput_per_s:.0f}",
                str(found.num_samples),
                _percentile(found.p95_ms, 0.95, found.num_samples),
                interval(found.mean_ms, ".3f"),
            )
        )
    headings = ("batch", "median", "p90", "p99", "samples/s", "runs")
    columns = (*names("latency, ms"), *numbers(*headings), *details("p95", "mean"))
    where = "" if device is None else f", on {device}"
    table = Table(columns, tuple(rows), f"{samples[0][1].clock}{where}")
    return Section("Latency", (table, *lines, Plots(tuple(_plots(samples)), is_wide=True)))


def _percentile(value_ms: float, share: float, num_runs: int) -> str:
    """A percentile; empty if it would only be the longest run, because there are too few runs."""
    return f"{value_ms:.3f}" if num_runs * (1.0 - share) > 1.0 - 1e-9 else ""


def _plots(samples: Sequence[tuple[str, Samples]]) -> list[Distribution]:
    by_size: Mapping[int, list[tuple[str, Sequence[float]]]] = {
        size: [(name, one.latencies_ms) for name, one in samples if one.batch_size == size]
        for size in sorted({one.batch_size for _, one in samples})
    }
    return [
        Distribution(f"how often a run takes how long, batch {size}", series, "ms")
        for size, series in by_size.items()
    ]
