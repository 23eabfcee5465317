"""The records of a build's stages, as parts of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.report.model import Line, Section, Table, names, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trtbuild.artifact import Record

__all__ = ["ranges_section", "stages_section"]

_NUM_SHOWN = 5


def stages_section(history: Iterable[Record]) -> Section:
    """Return the cost of each step from the loaded module on; empty if there is no module."""
    history = tuple(history)
    rows = [row for one in history if one.stage == "stages" for row in one.details["rows"]]
    table = Table(
        (*names("stage"), *numbers("top-1", "lost", "SQNR, dB"), *names("task"),
         *numbers("weights, kB", "MACs, million", "ms")),
        tuple(
            (
                row["stage"],
                "" if row["top1_percent"] is None else f"{row['top1_percent']:.2f} %",
                "" if row["lost_points"] is None else f"{row['lost_points']:+.2f}",
                "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
                row["figure"] or "",
                "" if row["weight_bytes"] is None else f"{row['weight_bytes'] / 1000:,.1f}",
                "" if row.get("macs") is None else f"{row['macs'] / 1e6:,.2f}",
                "" if row.get("latency_ms") is None else f"{row['latency_ms']:.3g}",
            )
            for row in rows
        ),
        "figures are relative to the module as it was loaded",
    )  # fmt: skip
    return Section("Stages", (*((table,) if rows else ()), *_zeros(history)))


def _zeros(history: Iterable[Record]) -> Iterator[Table]:
    """The cost of the 2:4 zeros of each layer."""
    for record in history:
        if record.stage == "zeros":
            yield Table(
                (*names("2:4 in"), *numbers("SQNR alone, dB", "gained without, dB")),
                tuple(
                    (row["node"], f"~{row['alone_sqnr_db']:.1f}", f"~{row['gained_db']:+.1f}")
                    for row in record.details["rows"]
                ),
                "effect of each layer's zeros on the outputs, in float, estimated to some 3 dB by "
                "gradients: with the zeros of this layer alone, and the gain if all zeros but these are kept",
                num_shown=_NUM_SHOWN,
            )


def ranges_section(history: Iterable[Record], *, changed: bool = False) -> Section:
    """Return the ranges tried, their error on the check images, and the tensors furthest from entropy.

    Args:
        history: history of the build.
        changed: whether the search for a budget changed the ranges afterwards.
    """
    records = [record for record in history if record.stage == "choose ranges"]
    if not records:
        return Section("Ranges", ())
    found = records[-1]
    later = "; the search for the accuracy budget changed them" if changed else ""
    tried = found.details.get("errors")
    count = f", the best of {len(tried)} that were tried" if tried else ""
    chosen = Line(f"ranges: {found.summary}{count}{later}")
    if tried is None:
        return Section("Ranges", (chosen,))
    return Section("Ranges", (chosen, _tried(found.details), _furthest(found.details)))


def _tried(details: Mapping[str, Any]) -> Table:
    ranked = sorted(details["errors"].items(), key=lambda one: one[1])
    return Table(
        (*names("ranges"), *numbers("error")),
        tuple((name, f"{error:.3g}") for name, error in ranked),
        f"error of the outputs (noise over signal, summed over their parts) on {details['images_checked']} "
        "calibration samples that chose nothing else",
        num_shown=_NUM_SHOWN,
        on_page=True,
    )


def _furthest(details: Mapping[str, Any]) -> Table:
    return Table(
        (*names("tensor", "rule"), *numbers("amax", "amax by entropy")),
        tuple(
            (one["tensor"], one["rule"], f"{one['amax']:.4g}", f"{one['entropy']:.4g}")
            for one in details["furthest"]
            if one["amax"] != one["entropy"]
        ),
        "the tensors whose ranges are furthest from those of the entropy rule",
        num_shown=_NUM_SHOWN,
        on_page=True,
    )
