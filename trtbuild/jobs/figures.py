"""The figures of a build by name, from its manifest, and what they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.diff.compare import Figure
from trtbuild.titles import TITLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.manifest import Manifest
    from trtbuild.verification.intervals import Estimate

__all__ = ["conditions_of", "figures_of"]


def figures_of(manifest: Manifest) -> dict[str, Figure]:
    """Return the accuracy figures of a build, its speed and its latencies, with their intervals."""
    return {**dict(_accuracy(manifest)), **dict(_speed(manifest))}


def conditions_of(manifest: Manifest) -> dict[str, str]:
    """Return what the figures depend on besides the engine: a name -> a value to compare."""
    found = {
        "the float networks differ": f"{manifest.model.graph}{manifest.model.weights}",
        "they were judged on different data": manifest.data.verification_digest,
    }
    if manifest.latency:
        found["they were timed on different machines"] = str(sorted(manifest.machine.items()))
    return {name: value for name, value in found.items() if value}


def _accuracy(manifest: Manifest) -> Iterator[tuple[str, Figure]]:
    for name, found in manifest.verification.items():
        of = TITLES.get(name, name)
        if found.task is not None and found.task.main is not None:
            main = found.task.main
            unit = f", {main.unit}" if main.unit else ""
            yield f"{of}: {main.name}{unit}", _figure(main.estimate)
        if found.accuracy is not None:
            yield f"{of}: top-1, %", _figure(found.accuracy.candidate_percent)
            yield f"{of}: top-1 lost, points", _figure(found.accuracy.drop_points)
        for output in found.outputs:
            if output.judged_sqnr_db is not None:
                yield f"{of}: SQNR of {output.judged}, dB", _figure(output.judged_sqnr_db)


def _speed(manifest: Manifest) -> Iterator[tuple[str, Figure]]:
    for name, verdict in manifest.latency_verdicts.items():
        ratio = verdict.ratio
        if ratio.value > 0:
            ends = (1 / ratio.high, 1 / ratio.low if ratio.low > 0 else float("inf"))
            title = f"{TITLES.get(name, name)}: speed, x {TITLES.get(verdict.base, verdict.base)}"
            yield title, Figure(1 / ratio.value, ends)
    for name, latency in manifest.latency.items():
        yield f"{TITLES.get(name, name)}: latency, ms", Figure(latency.median_ms)


def _figure(estimate: Estimate) -> Figure:
    return Figure(estimate.value, (estimate.low, estimate.high))
