"""The search for an accuracy budget as part of a report: its path, and the gain of every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trtbuild.plots.data import Path, Stop
from trtbuild.report.accuracy import ON_CLASSES
from trtbuild.report.model import Line, Plots, Section, Table, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trtbuild.artifact import Record
    from trtbuild.report.model import Block
    from trtbuild.search.budget import StepReport, Tuned

__all__ = ["moves_section", "search_section"]

_FEWEST_STOPS = 2


def search_section(tuned: Tuned | None, limits: Mapping[str, float]) -> Section:
    """Return the section of the search.

    Args:
        tuned: result of the search; None if there was none.
        limits: limits of the gate, by name.
    """
    heading = "Search for the accuracy budget"
    if tuned is None:
        return Section(heading, ())
    if tuned.met and len(tuned.steps) == 1:
        return Section(heading, (Line(_as_calibrated(tuned)),))
    return Section(heading, (*_path(tuned.steps, limits), _steps(tuned, limits)))


def _as_calibrated(tuned: Tuned) -> str:
    """The text for a network that needed no search."""
    (start,) = tuned.steps
    figure = "" if start.figure is None else f"{start.figure:.1f} for the task and "
    return (
        f"no search was needed: the network as calibrated has {figure}{start.sqnr_db:.1f} dB of SQNR "
        f"on {counted(tuned.num_images, 'calibration sample')}"
    )


def _path(steps: tuple[StepReport, ...], limits: Mapping[str, float]) -> Iterable[Block]:
    if len(steps) < _FEWEST_STOPS:
        return ()
    what, values, limit = _judged(steps, limits)
    has_cost = len({step.float_macs_percent for step in steps}) > 1
    across = "work in INT8, % (to the right: faster)" if has_cost else "step"
    stops = [
        Stop(
            100.0 - step.float_macs_percent if has_cost else float(number),
            value,
            f"{step.step}: {step.what or 'where the search began'}",
            step.kept,
        )
        for number, (step, value) in enumerate(zip(steps, values))
    ]
    caption = f"{what} after each step, on the samples of the search"
    return (Plots((Path(caption, stops, across, what, limit),), is_wide=True),)


def _judged(
    steps: tuple[StepReport, ...], limits: Mapping[str, float]
) -> tuple[str, list[float], float | None]:
    """The figure that the search used: its name, its values, and its limit."""
    figures = [step.figure for step in steps if step.figure is not None]
    agreements = [
        step.top1_agreement_percent for step in steps if step.top1_agreement_percent is not None
    ]
    if "min_agreement" in limits and len(figures) == len(steps):
        return "figure of the task", figures, limits["min_agreement"]
    if not ON_CLASSES.isdisjoint(limits) and len(agreements) == len(steps):
        return "same top-1, %", agreements, limits.get("min_top1_agreement")
    return "SQNR, dB", [step.sqnr_db for step in steps], limits.get("min_sqnr")


def _steps(tuned: Tuned, limits: Mapping[str, float]) -> Table:
    rows = tuple(
        (
            str(number),
            step.step,
            step.what,
            "" if step.figure is None else f"{step.figure:.1f}",
            f"{step.sqnr_db:.1f}",
            _same_top1(step, limits),
            "" if step.top1_drop_points is None else f"{step.top1_drop_points:+.2f}",
            f"{100.0 - step.float_macs_percent:.0f} %",
            str(step.num_evaluations),
        )
        for number, step in enumerate(tuned.steps)
    )
    return Table(
        (
            *numbers("no."),
            *names("step", "what"),
            *numbers("task", "SQNR, dB", "same top-1", "top-1 lost", "INT8 work", "runs"),
        ),
        rows,
        _caption(tuned),
    )


def _same_top1(step: StepReport, limits: Mapping[str, float]) -> str:
    """Top-1 agreement; empty unless a limit is on classes and the step has no task figure."""
    percent = step.top1_agreement_percent
    is_shown = step.figure is None and not ON_CLASSES.isdisjoint(limits)
    return f"{percent:.1f} %" if is_shown and percent is not None else ""


def _caption(tuned: Tuned) -> str:
    images = f"searched on {counted(tuned.num_images, 'calibration sample')}; accuracy is judged on others"
    if not tuned.ranked_by:
        return images
    return f"{images}; in float a group costs {tuned.ranked_by}"


def moves_section(history: Iterable[Record]) -> Section:
    """Return the moves of a build without a limit, with the error of the outputs after each."""
    found = [record for record in history if record.stage == "moves"]
    if not found or not found[-1].details["tried"]:
        return Section("Moves", ())
    details = found[-1].details
    tried = details["tried"]
    stops = [Stop(0.0, _decibels(details["error_before"]), "ranges chosen")]
    stops += [
        Stop(float(number), _decibels(one.error), f"{one.move}: {one.what}", one.kept)
        for number, one in enumerate(tried, 1)
    ]
    rows = tuple(
        (str(number), one.move, one.what, f"{one.error:.3g}", "kept" if one.kept else "dropped")
        for number, one in enumerate(tried, 1)
    )
    caption = "the outputs after each move, on calibration samples that chose none"
    return Section(
        "Moves",
        (
            Plots((Path(caption, stops, "move", "signal over noise, dB"),), is_wide=True),
            Table(
                (*numbers("no."), *names("move", "what"), *numbers("error"), *names("")),
                rows,
                f"judged on {counted(details['images_checked'], 'calibration sample')}",
                on_page=True,
            ),
        ),
    )


def _decibels(error: float) -> float:
    """The SQNR in dB for an error as noise over signal, limited to what a plot can show."""
    return -10.0 * math.log10(min(max(error, 1e-12), 1e12))
