"""The result of ``trtbuild engine`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.latency.conditions import this_device
from trtbuild.manifest import read_manifest
from trtbuild.report.model import Report, TensorPlot

if TYPE_CHECKING:
    from trtbuild.result import EngineResult

__all__ = ["engine_report"]

_NUM_TENSORS = 8


def engine_report(result: EngineResult) -> Report:
    """Take over everything that a page can show."""
    first = next(iter(result.comparisons.values()))
    return Report(
        title=f"{result.artifact.name} in INT8",
        facts={
            "engine": result.engine.path.name,
            "backend": result.why_backend,
            "images": f"{first.num_images}, not seen by calibration",
        },
        verdicts=result.verdicts,
        comparisons=tuple(result.comparisons.values()),
        samples=tuple(result.latency.values()),
        device=this_device() if result.latency else None,
        decisions=result.artifact.decisions,
        steps=result.tuned.steps if result.tuned is not None else (),
        num_search_images=result.tuned.num_images if result.tuned is not None else 0,
        tensors=_worst_tensors(result),
        manifest=read_manifest(result.manifest),
    )


def _worst_tensors(result: EngineResult) -> tuple[TensorPlot, ...]:
    """Histograms of the tensors whose own quantization costs most, with the threshold chosen."""
    calibration = result.artifact.calibration
    if calibration is None or calibration.histograms is None:
        return ()
    known = calibration.histograms
    ranges = {name: found for name, found in calibration.ranges.items() if name in known}
    usable = [name for name in ranges if known[name].observed_amax > 0]
    worst = sorted(usable, key=lambda name: ranges[name].sqnr_db)[:_NUM_TENSORS]
    return tuple(
        TensorPlot(
            name,
            known[name],
            {ranges[name].method: ranges[name].amax, "seen": known[name].observed_amax},
        )
        for name in worst
    )
