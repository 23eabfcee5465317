"""Ranges as parts of a report: thresholds and their cost, the choices of other methods, plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrators import METHODS
from trtbuild.calibration.instability import HARMLESS_DB, instability_costs
from trtbuild.report.model import (
    Line,
    Plots,
    Report,
    Section,
    Table,
    Tone,
    names,
    numbers,
)
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from calibrators import Calibration
    from trtbuild.artifact import EarlyStop
    from trtbuild.calibration.instability import InstabilityCost
    from trtbuild.jobs.calibrate import CalibrateResult
    from trtbuild.plots.data import Plot
    from trtbuild.report.model import Cell

__all__ = [
    "calibration_report",
    "early_stop_lines",
]


def calibration_report(
    title: str,
    result: CalibrateResult,
    plots: Mapping[str, Plot],
    *,
    has_all_methods: bool = False,
) -> Report:
    """Return the report of ``trtbuild calibrate``.

    Args:
        title: what was calibrated.
        result: the ranges, and what is known about them.
        plots: see `trtbuild.plots.calibration.calibration_plots`.
        has_all_methods: whether to show the choice of every method.
    """
    calibration, apart, early_stop = result.calibration, result.halves_apart, result.early_stop
    choices = _choices(calibration) if has_all_methods else {}
    return Report(
        title=f"ranges of {title}",
        facts={
            "method": calibration.method,
            "samples": str(calibration.provenance.get("num_samples", "?")),
            **({} if result.data is None else {"data": str(result.data)}),
        },
        notes=() if early_stop is None else tuple(early_stop_lines(early_stop, calibration)),
        sections=(
            Section("Ranges", (_methods(choices) if choices else _ranges(calibration, apart),)),
            Section("Thresholds of all methods", tuple(_plots(plots))),
        ),
        files={str(file): _what(file) for file in result.files},
        data=result.record(choices or None).to_json(),
    )


def _plots(plots: Mapping[str, Plot]) -> Iterator[Plots]:
    """The overview over the full width, then the plot of each tensor."""
    if plots:
        overview, *tensors = plots.values()
        yield Plots((overview,), is_wide=True)
        yield Plots(tuple(tensors[:_MOST_PLOTS]))


# Browsers cannot open a page with a plot for each of a thousand tensors; --plot writes them all.
_MOST_PLOTS = 200


def _what(file: Path) -> str:
    kinds = {".json": "ranges of all tensors", ".svg": "plot"}
    return kinds.get(file.suffix, "the same scales for TensorRT")


def _ranges(calibration: Calibration, apart: Mapping[str, float]) -> Table:
    rows = tuple(
        (
            name,
            f"{given.amax:.5g}",
            f"{given.observed_amax:.5g}",
            f"{given.clipped_share:.3%}",
            f"{given.sqnr_db:.1f}",
            f"{apart[name]:.1%}" if name in apart else "",
            given.note,
        )
        for name, given in calibration.ranges.items()
    )
    columns = (
        *names("tensor"),
        *numbers("amax", "largest seen", "clipped", "SQNR, dB", "halves apart"),
        *names("note"),
    )
    halves = (
        "; halves apart: by how much the thresholds of two halves of the data differ"
        if apart
        else ""
    )
    given = calibration.provenance.get("num_samples")
    samples = "? samples" if given is None else counted(int(given), "sample")
    return Table(columns, rows, f"{calibration.method} over {samples}{halves}")


def _choices(calibration: Calibration) -> dict[str, Calibration]:
    """The calibration as it was made, and by every other method of ours."""
    others = {m: calibration.chosen_with(m) for m in METHODS if m != calibration.method}
    return {calibration.method: calibration, **others}


def _methods(choices: Mapping[str, Calibration]) -> Table:
    """One row per tensor, one column per method: threshold, clipped share, SQNR of the tensor."""
    tensors = next(iter(choices.values())).ranges
    rows: list[tuple[Cell, ...]] = []
    for name in tensors:
        found = (choice.ranges[name] for choice in choices.values())
        cells = ((f"{r.amax:.4g}", f"{r.clipped_share:.2%}", f"{r.sqnr_db:.1f} dB") for r in found)
        rows.append((name, *cells))
    caption = "threshold, share of the values clipped, SQNR of the tensor"
    return Table((*names("tensor"), *numbers(*choices)), tuple(rows), caption)


def early_stop_lines(early_stop: EarlyStop, calibration: Calibration | None) -> Iterator[Line]:
    """Say how many samples were used, where the halves' thresholds differ, and what tensors lose by that."""
    used = f"{early_stop.num_used} of {early_stop.num_given} samples were used"
    share = f"{100 * early_stop.share:.3g} %"
    if not early_stop.apart:
        yield Line(f"{used}: the halves' thresholds agree to {share} in every tensor")
        return
    count = f"{len(early_stop.apart)} of {early_stop.num_tensors} tensors"
    yield Line(f"{used}, and {count} do not agree to {share}:", Tone.NOTE)
    for name, apart in early_stop.apart.items():
        how = "half of the data is empty" if apart is None else f"{apart:.2%} apart"
        yield Line(f"  {name}: {how}")
    costs = () if calibration is None else instability_costs(calibration, early_stop.apart)
    if costs:
        yield _lost(costs)


def _lost(costs: Sequence[InstabilityCost]) -> Line:
    """What tensors lose whose halves disagree, in words."""
    worst = costs[0]
    if worst.lost_db < HARMLESS_DB:
        return Line(
            f"what that means: with either half's threshold no tensor loses more than {worst.lost_db:.2f} dB "
            "of its SQNR, so more data will hardly change the accuracy"
        )
    many = sum(cost.lost_db >= HARMLESS_DB for cost in costs)
    return Line(
        f"what that means: {many} of them may lose {HARMLESS_DB:g} dB or more of their SQNR by the "
        f"choice of data, most '{worst.tensor}' with {worst.lost_db:.1f} dB (thresholds "
        f"{worst.apart:.0%} apart, of which the smaller clips {worst.clipped_share:.2%} of the values): "
        "the accuracy depends on which samples are used; give more, or samples closer to those that the "
        "engine will see",
        Tone.NOTE,
    )
