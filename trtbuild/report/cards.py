"""The figures that readers look for first: accuracy, speed, size, share of the work in INT8."""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING

from trtbuild.latency.limits import speedup_name
from trtbuild.latency.regress import Answer
from trtbuild.model.operators import RECURRENT, WEIGHTED
from trtbuild.model.stats import measure, node_macs
from trtbuild.model.traversal import all_nodes, label
from trtbuild.report.model import Card, Tone
from trtbuild.titles import ALSO, ENGINE, FP16, PORTABLE, PRUNED, TENSORRT_FORM, TITLES
from trtbuild.verification.gate import ON_DISTANCE, TOP1_LOST
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbuild.artifact import Artifact
    from trtbuild.latency.limits import SpeedFinding
    from trtbuild.latency.regress import LatencyVerdict
    from trtbuild.result import EngineResult
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Finding, Verdict
    from trtbuild.verification.intervals import Estimate

__all__ = [
    "SPEED_TONES",
    "accuracy_cards",
    "engine_cards",
    "int8_share",
    "shown_network",
    "speed_card",
]

SPEED_TONES = {Answer.FASTER: Tone.GOOD, Answer.SLOWER: Tone.BAD, Answer.CANNOT_TELL: Tone.NOTE}
_FORMS = {"%": "{:.1f} %", "points": "{:+.1f} points", "dB": "{:.1f} dB", "": "{:.3g}"}


def engine_cards(result: EngineResult) -> tuple[Card, ...]:
    """Return the cards of a build."""
    name = shown_network(result)
    whose = "" if name == ENGINE else TITLES[name]
    cards = [*accuracy_cards(result.comparisons[name], result.verdicts[name], whose)]
    cards += [
        speed_card(
            verdict,
            "Speed" if other == ENGINE else f"Speed of the {TITLES[other]}",
            result.speed.get(other, ()),
        )
        for other, verdict in result.latency_verdicts.items()
        if other != PRUNED
    ]
    if result.against_fp16 is not None:
        limits = result.speed.get(ENGINE, ())
        cards.append(speed_card(result.against_fp16, f"Speed against {TITLES[FP16]}", limits))
    return (*cards, *_size(result), *int8_share(result.artifact))


def shown_network(result: EngineResult) -> str:
    """Return the network whose figures come first: the engine, or the network that stands for it."""
    order = (ENGINE, ALSO, PORTABLE, TENSORRT_FORM)
    return next(name for name in order if name in result.comparisons)


def accuracy_cards(comparison: Comparison, verdict: Verdict, whose: str = "") -> Iterator[Card]:
    """Yield the task's figure, or the SQNR if the task is not known; with labels, also top-1.

    Args:
        comparison: the figures.
        verdict: the gate's verdict on them.
        whose: name of the network, if the title needs it.
    """
    of = f" of the {whose}" if whose else ""
    task = comparison.task
    if task is not None and task.main is not None:
        main, form = task.main, _FORMS[task.main.unit]
        detail = _how_sure(task.num_samples, main.estimate, form)
        value = form.format(main.estimate.value)
        yield Card(f"{_capital(main.name)}{of}", value, detail, _tone(verdict, main.name))
    else:
        yield from _sqnr(comparison, verdict, of)
    accuracy = comparison.accuracy
    if accuracy is not None:
        drop = accuracy.drop_points
        detail = (
            f"float {accuracy.reference_percent.value:.1f} %; "
            f"lost {drop.value:+.2f} points ({drop.low:+.2f} to {drop.high:+.2f})"
        )
        value = f"{accuracy.candidate_percent.value:.1f} %"
        yield Card(f"Top-1{of}", value, detail, _tone(verdict, TOP1_LOST))


def _sqnr(comparison: Comparison, verdict: Verdict, of: str) -> Iterator[Card]:
    known = [(o.judged_sqnr_db, o) for o in comparison.outputs if o.judged_sqnr_db is not None]
    if known:
        estimate, output = min(known, key=lambda one: one[0].value)
        detail = f"{counted(comparison.num_images, 'sample')}; worst output {output.judged}"
        tone = _tone(verdict, f"{ON_DISTANCE['min_sqnr']} {output.judged}")
        yield Card(f"SQNR{of}", f"{estimate.value:.1f} dB", detail, tone)


def _how_sure(num_samples: int, estimate: Estimate, form: str) -> str:
    """The basis of a figure: samples and interval; there may be none, as for one sample or a whole figure."""
    samples = counted(num_samples, "sample")
    if isinf(estimate.low) and isinf(estimate.high):
        why = (
            "too few for an interval"
            if num_samples == 1
            else "not judged one by one, so no interval"
        )
        return f"{samples}, {why}"
    low, high = (form.format(end) for end in (estimate.low, estimate.high))
    return f"{samples}; 95 % sure: {low} to {high}"


def _tone(verdict: Verdict, what: str) -> Tone:
    """The tone for the result of a figure's limit."""
    for finding in verdict.findings:
        if finding.what == what and finding.is_limit:
            return _tone_of(finding)
    return Tone.PLAIN


def _tone_of(finding: Finding) -> Tone:
    if not finding.passed:
        return Tone.BAD
    return Tone.GOOD if finding.settled else Tone.NOTE


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def speed_card(
    verdict: LatencyVerdict, title: str = "Speed", limits: Iterable[SpeedFinding] = ()
) -> Card:
    """Return the card about the speed: only what the interval shows.

    Args:
        verdict: verdict on the two latencies.
        title: title of the card.
        limits: limits on speed; one on this comparison sets the card's tone.
    """
    ratio, base = verdict.ratio, verdict.base
    slow, fast = (100.0 * (end - 1.0) for end in (ratio.high, ratio.low))
    between = f"{fast:+.0f} to {slow:+.0f} % of the time of {base}"
    value = {
        Answer.FASTER: f"{1 / ratio.value:.3g} x faster",
        Answer.SLOWER: f"{ratio.value:.3g} x slower",
        Answer.SAME: f"same within {verdict.margin_percent:g} %",
        Answer.CANNOT_TELL: "cannot tell",
    }[verdict.answer]
    if verdict.answer is Answer.FASTER:
        between = f"than {base}, here; surely {1 / ratio.high:.3g} to {1 / ratio.low:.3g} x"
    elif verdict.answer is Answer.SLOWER:
        between = f"than {base}, here; surely {ratio.low:.3g} to {ratio.high:.3g} x"
    elif verdict.answer is Answer.CANNOT_TELL:
        between = f"from {_change(ratio.low)} to {_change(ratio.high)} than {base}; too noisy here"
    tone = SPEED_TONES.get(verdict.answer, Tone.PLAIN)
    for limit in limits:
        if limit.what == speedup_name(verdict):
            tone = _tone_of(limit)
    return Card(title, value, between, tone)


def _change(ratio: float) -> str:
    return f"{1 / ratio:.3g} x faster" if ratio < 1 else f"{ratio:.3g} x slower"


def _size(result: EngineResult) -> Iterator[Card]:
    files = {} if result.record is None else result.record.files
    file = files.get(result.engine.path.name)
    if file is None:
        return
    size, floats = file.bytes, measure(result.artifact.source).parameter_bytes
    detail = f"float's weights: {_bytes(floats)}"
    if 0 < size < floats:
        detail += f", {floats / size:.1f} x as much"
    yield Card("Size of the engine", _bytes(size), detail)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def int8_share(artifact: Artifact) -> Iterator[Card]:
    """Return a card with the share of the work in INT8; none for a network that is not quantized."""
    if artifact.quantized is None:
        return
    done = {decision.node for decision in artifact.decisions if decision.int8}
    work = {label(node): node_macs(node) for node in all_nodes(artifact.model.graph)}
    total = sum(work.values())
    weighted = [one for one in artifact.decisions if one.op_type in WEIGHTED | RECURRENT]
    layers = f"{sum(d.int8 for d in weighted)} of {len(weighted)} layers with weights"
    if artifact.portable is not None and (few := artifact.portable.in_float):
        layers += f", {len(few)} of them in float in the portable engine"
    if total:
        share = 100.0 * sum(macs for name, macs in work.items() if name in done) / total
        # do not round nearly all to all
        shown = f"{share:.0f}" if share == 100.0 or share < 99.5 else f"{min(share, 99.9):.1f}"
        yield Card("Work in INT8", f"{shown} %", f"of multiply-accumulates; {layers}")
    else:
        count, _, rest = layers.partition(" layers")
        yield Card("In INT8", count, f"layers{rest}")
