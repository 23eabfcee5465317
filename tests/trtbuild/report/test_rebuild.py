"""What the report on a repeated build shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtbuild.diff.compare import FigureChange
from trtbuild.jobs.rebuild import Difference, Rebuilt
from trtbuild.report.rebuild import rebuild_report


@pytest.mark.parametrize(
    ("same_bytes", "kinds", "verdicts", "is_shown"),
    [
        (True, (), ("SHIP", "SHIP"), False),
        (True, ("machine", "version"), ("SHIP", "SHIP"), False),
        (False, (), ("SHIP", "SHIP"), True),
        (True, ("data",), ("SHIP", "SHIP"), True),
        (True, ("network",), ("SHIP", "SHIP"), True),
        (True, (), ("SHIP", "DO NOT SHIP"), True),
        (True, (), ("", "SHIP"), True),  # an older record, without a verdict
    ],
)
def test_figures_are_shown_unless_what_they_depend_on_is_the_same(
    same_bytes, kinds, verdicts, is_shown
) -> None:
    manifest = Path("net.manifest.json")
    differences = tuple(Difference(kind, "it", "a", "b") for kind in kinds)
    figures = (FigureChange("engine: SQNR of 'y', dB", 30.0, 31.0),)
    done = Rebuilt(manifest, differences, same_bytes, verdicts=verdicts, figures=figures)
    (section,) = rebuild_report(manifest, done).sections
    assert bool(section.blocks) == is_shown
