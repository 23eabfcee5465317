"""A report as one HTML file that opens offline: the verdict first, the record last."""

from __future__ import annotations

import json
import math
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from trtbuild.latency.stats import summarize
from trtbuild.model.operators import WEIGHTED
from trtbuild.report.histogram_plot import histogram_plot
from trtbuild.report.page import definitions, figure, fold, page, section, table
from trtbuild.report.svg import bars, steps
from trtbuild.verification.metrics import SQNR_BINS_FROM_DB

if TYPE_CHECKING:
    from trtbuild.report.model import Report
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.layers import LayerError, LayerReport
    from trtbuild.verification.metrics import OutputComparison

__all__ = ["to_html"]

_NUM_LAYERS = 20


def to_html(report: Report) -> str:
    """Return the page."""
    return page(
        f"trtbuild: {report.title}",
        (
            _verdict(report),
            section(
                "Accuracy",
                _accuracy(report),
                _scores(report),
                _accuracy_plots(report),
                _worst(report),
            ),
            section("Search for the accuracy budget", _search(report)),
            section("Latency", _latency(report)),
            section("INT8 coverage", _coverage(report)),
            section("Layers", _layers(report), _culprits(report), _sensitivity(report)),
            section("Thresholds of the tensors that lose most", _tensors(report)),
            section("Record", _manifest(report)),
        ),
    )


def _verdict(report: Report) -> str:
    judged = report.verdicts or report.latency_verdicts
    word, kind = ("PASSED", "pass") if report.passed else ("FAILED", "fail")
    badge = f'<p><span class="verdict {kind}">{word}</span></p>' if judged else ""
    lines = [
        f'<li class="{"good" if finding.passed else "bad"}">{escape(f"{name}: {finding}")}</li>'
        for name, verdict in report.verdicts.items()
        for finding in sorted(verdict.findings, key=lambda finding: finding.passed)
        if not finding.passed or finding.unit or finding.limit
    ]
    lines += [
        f'<li class="{"bad" if verdict.answer == "slower" else ""}">{escape(str(verdict))}</li>'
        for verdict in report.latency_verdicts
    ]
    return (
        f"<header><h1>{escape(report.title)}</h1>{badge}<ul>{''.join(lines)}</ul>"
        f"{definitions(report.facts)}</header>"
    )


def _accuracy(report: Report) -> str:
    rows = [
        (comparison.candidate, output.name, *_figures(output))
        for comparison in report.comparisons
        for output in comparison.outputs
    ]
    headings = (
        "network",
        "output",
        "SQNR, dB",
        "cosine",
        "relative L2",
        "max error",
        "same top-1",
        "same top-k",
    )
    return table(headings, rows, names=2)


def _figures(output: OutputComparison) -> tuple[str, ...]:
    if output.kind == "integers":
        return (f"{output.equal_percent:.2f} % equal", "", "", f"{output.max_error:g}", "", "")
    return (
        _with_interval(output.sqnr_db, ".1f"),
        _plain(output.cosine, ".5f"),
        _plain(output.relative_l2, ".4f"),
        f"{output.max_error:.3g}",
        _with_interval(output.top1_agreement_percent, ".1f", " %"),
        _plain(output.topk_agreement_percent, ".1f", f" % (k = {output.top_k})"),
    )


def _plain(estimate: Estimate | None, form: str, unit: str = "") -> str:
    return "" if estimate is None else f"{estimate.value:{form}}{unit}"


def _with_interval(estimate: Estimate | None, form: str, unit: str = "") -> str:
    if estimate is None or math.isinf(estimate.low) or math.isinf(estimate.high):
        return _plain(estimate, form, unit)
    return f"{estimate.value:{form}}{unit} ({estimate.low:{form}} to {estimate.high:{form}})"


def _scores(report: Report) -> str:
    rows = []
    for comparison in report.comparisons:
        accuracy = comparison.accuracy
        if accuracy is not None:
            rows.append(
                (
                    f"{comparison.candidate}, top-1",
                    str(accuracy.num_images),
                    f"{accuracy.reference_percent.value:.2f} %",
                    f"{accuracy.candidate_percent.value:.2f} %",
                    _with_interval(accuracy.drop_points, "+.2f", " points"),
                )
            )
        rows += [
            (
                f"{comparison.candidate}, {metric.name}",
                str(metric.num_images),
                f"{metric.reference:.4g}",
                f"{metric.candidate:.4g}",
                _with_interval(metric.drop, "+.4g"),
            )
            for metric in comparison.metrics
        ]
    return table(("score", "images", "float", "network", "lost"), rows)


def _accuracy_plots(report: Report) -> str:
    figures = [
        figure(f"{comparison.candidate}, {output.name}: images by SQNR", _sqnr_plot(output))
        for comparison in report.comparisons
        for output in comparison.outputs[:4]
        if output.kind != "integers" and sum(output.sqnr_histogram) > 1
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _worst(report: Report) -> str:
    rows = [
        (
            image.name,
            comparison.candidate,
            output.name,
            f"{image.sqnr_db:.1f}",
            f"{image.cosine:.5f}",
            f"{image.max_error:.3g}",
        )
        for comparison in report.comparisons
        for output in comparison.outputs
        for image in output.worst
    ]
    headings = ("image", "network", "output", "SQNR, dB", "cosine", "max error")
    return fold("worst images", table(headings, rows, names=3)) if rows else ""


def _sqnr_plot(output: OutputComparison) -> str:
    counts = output.sqnr_histogram
    used = [i for i, count in enumerate(counts) if count]
    first, last = max(used[0] - 2, 0), min(used[-1] + 3, len(counts))
    edges = [float(SQNR_BINS_FROM_DB + i) for i in range(first, last + 1)]
    return bars(edges, list(counts[first:last]), "dB", title=f"images of {output.name} by SQNR")


def _search(report: Report) -> str:
    rows = [
        (
            step.step,
            step.what,
            f"{step.sqnr_db:.1f}",
            "" if step.top1_agreement_percent is None else f"{step.top1_agreement_percent:.1f} %",
            "" if step.top1_drop_points is None else f"{step.top1_drop_points:+.2f}",
            str(step.num_evaluations),
        )
        for step in report.steps
    ]
    note = (
        f'<p class="dim">Searched on {report.num_search_images} calibration images; the figures above'
        " are of images that the search has not seen.</p>"
    )
    headings = ("step", "what", "SQNR, dB", "same top-1", "top-1 lost", "runs")
    return table(headings, rows, names=2) + (note if rows else "")


def _latency(report: Report) -> str:
    if not report.samples:
        return ""
    summaries = [summarize(samples) for samples in report.samples]
    rows = [
        (
            found.name,
            str(found.batch_size),
            f"{found.median_ms:.3f}",
            f"{found.p90_ms:.3f}",
            f"{found.p95_ms:.3f}",
            f"{found.p99_ms:.3f}",
            _with_interval(found.mean_ms, ".3f"),
            f"{found.throughput_per_s:.0f}",
            str(found.num_samples),
        )
        for found in summaries
    ]
    headings = ("latency, ms", "batch", "median", "p90", "p95", "p99", "mean", "images/s", "runs")
    plots = "".join(
        figure(
            f"share of runs at or below, batch {size}",
            steps([(s.name, s.latencies_ms) for s in report.samples if s.batch_size == size], "ms"),
        )
        for size in sorted({samples.batch_size for samples in report.samples})
    )
    facts = {"clock": report.samples[0].clock}
    if report.device is not None:
        facts["device"] = str(report.device)
    if report.conditions is not None and report.conditions.remarks():
        facts["note"] = " ".join(report.conditions.remarks())
    return table(headings, rows) + definitions(facts) + f'<div class="grid">{plots}</div>'


def _coverage(report: Report) -> str:
    weighted = [decision for decision in report.decisions if decision.op_type in WEIGHTED]
    if not weighted:
        return ""
    done = sum(decision.quantized for decision in weighted)
    reasons = Counter((d.op_type, d.reason) for d in weighted if not d.quantized)
    rows = [(op_type, reason, str(count)) for (op_type, reason), count in reasons.most_common()]
    every = table(
        ("layer", "op", "precision", "reason"),
        [
            (d.node, d.op_type, "INT8" if d.quantized else "float", d.reason)
            for d in report.decisions
        ],
        names=4,
    )
    return (
        f"<p>{done} of {len(weighted)} layers with weights run in INT8.</p>"
        + table(("in float", "reason", "layers"), rows, names=2)
        + fold(f"all {len(report.decisions)} nodes", every)
    )


def _layers(report: Report) -> str:
    if report.layers is None:
        return ""
    found = report.layers
    headings = ("layer", "op", "own dB", "inherited dB", "total dB", "weight dB", "worst channel")
    shown = table(headings, [_layer_row(layer) for layer in found.layers[:_NUM_LAYERS]], names=2)
    rest = found.layers[_NUM_LAYERS:]
    more = fold(
        f"{len(rest)} more", table(headings, [_layer_row(layer) for layer in rest], names=2)
    )
    note = (
        f'<p class="dim">SQNR on {found.num_images} images, the worst error of its own first.</p>'
    )
    return note + shown + (more if rest else "") + _activations(found)


def _layer_row(layer: LayerError) -> tuple[str, ...]:
    weight = layer.weight
    name = f"{layer.module} ({layer.node})" if layer.module else layer.node
    return (
        name,
        layer.op_type,
        f"{layer.own_sqnr_db:.1f}",
        f"{layer.inherited_sqnr_db:.1f}",
        f"{layer.total_sqnr_db:.1f}",
        "" if weight is None else f"{weight.sqnr_db:.1f}",
        "" if weight is None else f"{weight.worst_channel} ({weight.worst_channel_sqnr_db:.1f} dB)",
    )


def _activations(found: LayerReport) -> str:
    headings = ("activation", "SQNR, dB", "scale", "clipped", "noise from clipping")
    rows = [
        (
            one.tensor,
            f"{one.sqnr_db:.1f}",
            f"{one.scale:.4g}",
            f"{one.clipped_percent:.4f} %",
            f"{one.clipping_noise_percent:.0f} %",
        )
        for one in found.activations
    ]
    return fold(f"all {len(rows)} quantized activations", table(headings, rows))


def _culprits(report: Report) -> str:
    found = report.culprits
    if found is None:
        return ""
    names = "".join(f"<li>{escape(name)}</li>" for name in found.groups)
    if found.passes_quantized:
        text = "Bisecting: on these images no limit fails."
    elif not found.passes_float:
        text = "Bisecting: the limits fail with every layer in float too."
    else:
        text = f"Bisecting: in float, these {len(found.groups)} let the network pass."
    return f"<p>{text} ({found.num_evaluations} evaluations)</p><ul>{names}</ul>"


def _sensitivity(report: Report) -> str:
    headings = ("group", "op", "MMAC", "alone INT8, dB", "same top-1", "gained in float, dB")
    rows = [
        (
            one.group,
            one.op_type,
            f"{one.macs / 1e6:.2f}",
            f"{one.alone_sqnr_db:.1f}",
            ""
            if one.alone_top1_agreement_percent is None
            else f"{one.alone_top1_agreement_percent:.1f} %",
            f"{one.gained_db:+.2f}",
        )
        for one in report.sensitivity
    ]
    return table(headings, rows, names=2)


def _tensors(report: Report) -> str:
    figures = [
        figure(one.tensor, histogram_plot(one.tensor, one.histogram, one.amaxes))
        for one in report.tensors
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _manifest(report: Report) -> str:
    if report.manifest is None:
        return ""
    text = json.dumps(report.manifest, indent=1, ensure_ascii=False)
    return fold("manifest", f"<pre>{escape(text)}</pre>")
