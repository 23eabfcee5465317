"""The figures of a build by name, from its manifest, and what they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.diff.compare import FigureValue
from trtbuild.titles import TITLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.manifest import Manifest
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.intervals import Estimate

__all__ = ["accuracy_of", "conditions_of", "figures_of"]


def figures_of(manifest: Manifest) -> dict[str, FigureValue]:
    """Return the accuracy figures of a build, its speed and its latencies, with their intervals."""
    accuracy = {
        f"{TITLES.get(name, name)}: {what}": figure
        for name, found in manifest.verification.items()
        for what, figure in accuracy_of(found).items()
    }
    return {**accuracy, **dict(_speed(manifest))}


def accuracy_of(found: Comparison) -> dict[str, FigureValue]:
    """Return the figures of one network against float by name: task, top-1, SQNR of the outputs."""
    return dict(_accuracy(found))


def conditions_of(manifest: Manifest) -> dict[str, str]:
    """Return what the figures depend on besides the engine: a name -> a value to compare."""
    found = {
        "the float networks differ": f"{manifest.model.graph}{manifest.model.weights}",
        "they were judged on different data": manifest.data.verification_digest,
    }
    if manifest.latency:
        found["they were timed on different machines"] = str(sorted(manifest.machine.items()))
        built_on = manifest.engine.details.get("machine", {})
        found["they were timed on different GPUs"] = built_on.get("gpu", "")
    return {name: value for name, value in found.items() if value}


def _accuracy(found: Comparison) -> Iterator[tuple[str, FigureValue]]:
    if found.task is not None and found.task.main is not None:
        main = found.task.main
        yield main.name + (f", {main.unit}" if main.unit else ""), _figure(main.estimate)
    if found.accuracy is not None:
        yield "top-1, %", _figure(found.accuracy.candidate_percent)
        yield "top-1 lost, points", _figure(found.accuracy.drop_points)
    for output in found.outputs:
        if output.judged_sqnr_db is not None:
            yield f"SQNR of {output.judged}, dB", _figure(output.judged_sqnr_db)


def _speed(manifest: Manifest) -> Iterator[tuple[str, FigureValue]]:
    for name, verdict in manifest.latency_verdicts.items():
        ratio = verdict.ratio
        if ratio.value > 0:
            ends = (1 / ratio.high, 1 / ratio.low if ratio.low > 0 else float("inf"))
            title = f"{TITLES.get(name, name)}: speed, x {TITLES.get(verdict.base, verdict.base)}"
            yield title, FigureValue(1 / ratio.value, ends)
    for name, latency in manifest.latency.items():
        yield f"{TITLES.get(name, name)}: latency, ms", FigureValue(latency.median_ms)


def _figure(estimate: Estimate) -> FigureValue:
    return FigureValue(estimate.value, (estimate.low, estimate.high))
