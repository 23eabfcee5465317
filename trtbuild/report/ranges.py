"""How the ranges of a build were chosen, as a part of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.report.model import Line, Section, Table, names, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trtbuild.artifact import Record

__all__ = ["ranges_section"]

_NUM_SHOWN = 5


def ranges_section(history: Iterable[Record]) -> Section:
    """Return what was tried, its error on the check images, and the tensors furthest from entropy."""
    records = [record for record in history if record.stage == "choose ranges"]
    if not records:
        return Section("Ranges", ())
    found = records[-1]
    if "errors" not in found.details:
        return Section("Ranges", (Line(f"ranges: {found.summary}"),))
    return Section(
        "Ranges",
        (Line(f"ranges: {found.summary}"), _tried(found.details), _furthest(found.details)),
    )


def _tried(details: Mapping[str, Any]) -> Table:
    ranked = sorted(details["errors"].items(), key=lambda one: one[1])
    return Table(
        (*names("ranges"), *numbers("error")),
        tuple((name, f"{error:.3g}") for name, error in ranked),
        f"error of the outputs (noise over signal, summed over their parts) on {details['images_checked']} "
        "calibration samples that chose nothing else",
        num_shown=_NUM_SHOWN,
    )


def _furthest(details: Mapping[str, Any]) -> Table:
    return Table(
        (*names("tensor", "rule"), *numbers("amax", "amax by entropy")),
        tuple(
            (one["tensor"], one["rule"], f"{one['amax']:.4g}", f"{one['entropy']:.4g}")
            for one in details["furthest"]
        ),
        "the tensors whose ranges are furthest from those of the entropy rule",
        num_shown=_NUM_SHOWN,
    )
