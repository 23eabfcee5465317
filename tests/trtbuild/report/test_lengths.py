"""Shortened output on a terminal: a search that did nothing, and a subset of many names."""

from __future__ import annotations

from typing import Any, cast

import pytest

from trtbuild.jobs.advise import DataAdvice
from trtbuild.report.advise import advice_report
from trtbuild.report.model import Line, Table
from trtbuild.report.search import search_section
from trtbuild.search.budget import StepReport, Tuned


def tuned(*kept: bool, met: bool) -> Tuned:
    steps = tuple(StepReport("step", "what", one, 41.2, None, None, 1, 99.5) for one in kept)
    return Tuned(cast("Any", None), steps, met, (), 0.0, 32)


def test_a_search_that_was_not_needed_is_one_sentence() -> None:
    (line,) = search_section(tuned(True, met=True), {}).blocks
    assert isinstance(line, Line)
    assert line.text == (
        "no search was needed: the network as calibrated has 99.5 for the task and 41.2 dB of SQNR "
        "on 32 calibration samples"
    )
    for other in (tuned(True, met=False), tuned(True, True, met=True)):
        assert isinstance(search_section(other, {}).blocks[-1], Table)


@pytest.mark.parametrize(
    ("count", "end"), [(20, "s19"), (23, "s19 and 3 more; --subset FILE writes all")]
)
def test_of_a_long_subset_the_first_are_shown(count: int, end: str) -> None:
    names = tuple(f"s{number}" for number in range(count))
    advice = DataAdvice("data.npz", count, 2, 0, (), (), (), "entropy", 0.05, names)
    (section,) = (one for one in advice_report(advice).sections if one.heading == "The subset")
    (line,) = section.blocks
    assert isinstance(line, Line)
    assert line.text.endswith(f"s18, {end}")
