"""The result of ``trtbuild engine`` as a report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from trtbuild.latency.conditions import this_device
from trtbuild.model.operators import RECURRENT, WEIGHTED
from trtbuild.plots.calibration import histogram_plot
from trtbuild.report.accuracy import (
    accuracy_checks,
    accuracy_section,
    gallery,
    layer_blocks,
)
from trtbuild.report.calibration import early_stop_lines
from trtbuild.report.cards import SPEED_TONES, engine_cards, shown_network
from trtbuild.report.history import ranges_section, stages_section
from trtbuild.report.latency import latency_section, speed_checks
from trtbuild.report.layer_bars import layer_bars
from trtbuild.report.model import (
    Line,
    Plots,
    Report,
    Section,
    Table,
    Tone,
    Verbatim,
    names,
    numbers,
)
from trtbuild.report.search import moves_section, search_section
from trtbuild.result import has_moved
from trtbuild.titles import TITLES
from trtbuild.toml_files import toml_text
from trtbuild.verification.ruling import FAR_SQNR_DB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trtbuild.artifact import Record
    from trtbuild.backends.base import Engine
    from trtbuild.manifest import Manifest
    from trtbuild.plots.data import Bars
    from trtbuild.result import EngineResult

__all__ = ["engine_report"]

_NUM_TENSORS = 6
_NUM_LAYERS = 8


def engine_report(result: EngineResult) -> Report:
    """Return the report: accuracy, ranges, the search, latency, coverage, layers at fault, thresholds."""
    checks = accuracy_checks({TITLES[name]: one for name, one in result.verdicts.items()})
    for name, limits in result.speed.items():
        checks += speed_checks(TITLES[name], limits)
    comparisons = {TITLES[name]: found for name, found in result.comparisons.items()}
    record = result.record
    assert record is not None  # every finished build has one
    return Report(
        title=f"{result.artifact.name} in INT8" if _is_int8(result) else result.artifact.name,
        cards=engine_cards(result),
        facts=_facts(result),
        notes=tuple(_notes(result)),
        sections=(
            _samples(result),
            stages_section(result.artifact.history),
            accuracy_section(comparisons, limits=record.options.gate),
            _bars(result),
            _layers(result),
            search_section(result.tuned, record.options.gate),
            _latency(result),
            Section("Thresholds of the tensors that matter most", (Plots(tuple(_plots(result))),)),
            ranges_section(result.artifact.history, changed=_was_searched(result)),
            moves_section(result.artifact.history),
            _coverage(result),
            _made(record),
        ),
        files=_files(result),
        checks=checks,
        verdict=result.ruling.why,
        ruling=result.ruling.word,
        next_step=record.next_step,
        data=record,
    )


def _was_searched(result: EngineResult) -> bool:
    """Whether a step of the search for a budget was kept."""
    return result.tuned is not None and any(step.kept for step in result.tuned.steps[1:])


def _is_int8(result: EngineResult) -> bool:
    return result.artifact.quantized is not None


def _facts(result: EngineResult) -> dict[str, str]:
    num_images = next(iter(result.comparisons.values())).num_images
    also = {}
    if result.also is not None:
        built = result.also.engine.path.name
        also = {"second engine": built, "its backend": result.also.why_backend}
    seen = "not seen by calibration" if result.kept_apart else "which calibration may have seen"
    return {
        "engine": result.engine.path.name,
        "backend": result.why_backend,
        **also,
        "samples": f"{num_images}, {seen}",
    }


def _notes(result: EngineResult) -> Iterator[Line]:
    """What a user should know about ranges and options."""
    for record in result.artifact.history:
        if record.stage == "data":
            yield Line(f"data: {record.summary}")
        if record.stage == "float accuracy":
            yield Line(record.summary)
        if record.stage == "spot check":
            yield _of_reuse(record)
    yield from _time_limits(result)
    for name, what in _without_range(result).items():
        yield Line(
            f"note: the tensor '{name}' {what}; the layers that read it stay float", Tone.NOTE
        )
    if result.better_rule is not None:
        yield Line(f"note: {result.better_rule}", Tone.NOTE)
    for gap in result.below_tensorrt_form:
        yield Line(f"note: {gap}", Tone.NOTE)
    artifact = result.artifact
    if artifact.early_stop is not None:
        calibration = artifact.given_calibration or artifact.calibration
        yield from early_stop_lines(artifact.early_stop, calibration)
    for engine in (result.engine, *([result.also.engine] if result.also else [])):
        yield from _engine_notes(engine)


def _time_limits(result: EngineResult) -> Iterator[Line]:
    """What the limit of time has ended."""
    words = {"choose ranges": "the choice of ranges", "moves": "the moves"}
    over = [words[one.stage] for one in result.artifact.history if one.details.get("time_was_over")]
    if over:
        yield Line(
            f"note: {' and '.join(over)} reached the limit of time: with more, as by a higher --effort, the "
            "engine may be more accurate",
            Tone.NOTE,
        )


def _of_reuse(record: Record) -> Line:
    """How far reused ranges are off; other samples alone are no reason for a warning."""
    if record.details["changed"] == ["data"] and not has_moved(record):
        return Line(record.summary)
    return Line(f"note: {record.summary}", Tone.NOTE)


def _engine_notes(engine: Engine) -> Iterator[Line]:
    """What a user should know about an engine."""
    name = engine.path.name
    if engine.not_opened:
        yield Line(
            f"note: '{name}' was built but not run here, because {engine.not_opened}; no figure was "
            "measured on it",
            Tone.NOTE,
        )
    for note in engine.notes:
        yield Line(f"note: '{name}': {note}", Tone.NOTE)
    if engine.without_effect:
        text = ", ".join(name.replace("_", "-") for name in engine.without_effect)
        yield Line(f"note: no effect on {engine.backend}: {text}", Tone.NOTE)


def _without_range(result: EngineResult) -> Mapping[str, str]:
    done = [record for record in result.artifact.history if record.stage == "quantize"]
    return done[-1].details["without_range"] if done else {}


def _latency(result: EngineResult) -> Section:
    if not result.latency:
        return Section("Latency", ())
    verdicts = [*result.latency_verdicts.values()]
    if result.against_fp16 is not None:
        verdicts.append(result.against_fp16)
    relations = [Line(str(one), SPEED_TONES.get(one.answer, Tone.PLAIN)) for one in verdicts]
    if result.without_fp16:
        relations.append(Line(f"not compared with FP16: {result.without_fp16}"))
    samples = [(TITLES[name], one) for name, one in result.latency.items()]
    return latency_section(samples, tuple(relations), this_device())


def _coverage(result: EngineResult) -> Section:
    if not _is_int8(result):
        return Section("INT8 coverage", (Line("INT8 was not asked for"),))
    decisions = result.artifact.decisions
    weighted = [one for one in decisions if one.op_type in WEIGHTED | RECURRENT]
    done = sum(decision.int8 for decision in weighted)
    reasons = Counter((d.op_type, d.reason) for d in weighted if not d.int8)
    every = tuple((d.node, d.op_type, "INT8" if d.int8 else "float", d.reason) for d in decisions)
    return Section(
        "INT8 coverage",
        (
            Line(f"{done} of {len(weighted)} layers with weights run in INT8"),
            Table(
                (*names("in float", "reason"), *numbers("layers")),
                tuple((op, reason, str(count)) for (op, reason), count in reasons.most_common()),
            ),
            Table(
                names("layer", "op", "precision", "reason"),
                every,
                num_shown=0,
                fold=f"all {len(every)} nodes",
            ),
        ),
    )


def _samples(result: EngineResult) -> Section:
    """The worst samples of the engine, or of the network that stands for it."""
    name = shown_network(result)
    return Section("Worst samples", tuple(gallery(TITLES[name], result.comparisons[name])))


def _bars(result: EngineResult) -> Section:
    blocks = () if result.effects is None else layer_bars(result.artifact, result.effects)
    return Section("What each layer costs the outputs", blocks)


def _made(record: Manifest) -> Section:
    """The command and the recipe of the build."""
    recipe = toml_text(record.recipe or {})
    blocks = (Verbatim(record.command), Verbatim(recipe, "the recipe, as TOML"))
    return Section("How it was made", blocks)


def _layers(result: EngineResult) -> Section:
    if result.layers is None:
        return Section("Layers", ())
    far = f"an output lies below {FAR_SQNR_DB:g} dB; these layers cost it most (see --float)"
    return Section("Layers", (Line(far), *layer_blocks(result.layers, _NUM_LAYERS)))


def _plots(result: EngineResult) -> Iterator[Bars]:
    """Histograms, with the threshold, of the tensors whose INT8 costs the outputs most.

    If that is not known, of the tensors whose own SQNR is lowest.
    """
    calibration = result.artifact.calibration
    if calibration is None or calibration.histograms is None:
        return
    known = calibration.histograms
    ranges = {name: found for name, found in calibration.ranges.items() if name in known}
    usable = [name for name in ranges if known[name].observed_amax > 0]
    effects = {} if result.effects is None else result.effects.activations
    matters = {name: one.alone_sqnr_db for name, one in effects.items() if name in usable}
    order = matters or {name: ranges[name].sqnr_db for name in usable}
    for name in sorted(order, key=lambda name: order[name])[:_NUM_TENSORS]:
        amaxes = {ranges[name].method: ranges[name].amax, "seen": known[name].observed_amax}
        yield histogram_plot(name, known[name], amaxes)


def _files(result: EngineResult) -> dict[str, str]:
    folder = result.manifest.parent
    named = {**result.files, result.manifest.name: "the record of this build"}
    return {str(folder / name): what for name, what in named.items()}
