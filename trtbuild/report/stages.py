"""The steps from a loaded module to its engine, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Section, Table, names, numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.artifact import Record

__all__ = ["stages_section"]


def stages_section(history: Sequence[Record]) -> Section:
    """Return what each step from the loaded module on costs; empty where the network came from no module."""
    rows = [row for one in history if one.stage == "stages" for row in one.details["rows"]]
    table = Table(
        (*names("stage"), *numbers("top-1", "lost", "SQNR, dB"), *names("task"),
         *numbers("weights, kB", "MACs, million")),
        tuple(
            (
                row["stage"],
                "" if row["top1_percent"] is None else f"{row['top1_percent']:.2f} %",
                "" if row["lost_points"] is None else f"{row['lost_points']:+.2f}",
                "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
                row["figure"] or "",
                "" if row["weight_bytes"] is None else f"{row['weight_bytes'] / 1000:,.1f}",
                "" if row.get("macs") is None else f"{row['macs'] / 1e6:,.2f}",
            )
            for row in rows
        ),
        "figures count from the module as it was loaded",
    )  # fmt: skip
    return Section("Stages", (table,) if rows else ())
