"""The result of ``trtbuild rebuild`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.diff import diff_blocks
from trtbuild.report.model import Line, Report, Section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.jobs.rebuild import Rebuilt

__all__ = ["rebuild_report"]


def rebuild_report(manifest: Path, result: Rebuilt) -> Report:
    """Return the report: differences from the build of `manifest`, for networks node by node."""
    return Report(
        title=f"{manifest.name}, built again",
        notes=tuple(_notes(result)),
        sections=tuple(
            Section(name, (Line(f"{name}, A as it was, B as it is:"), *diff_blocks(one)))
            for name, one in result.networks.items()
        ),
        data=result.to_json(),
    )


def _notes(result: Rebuilt) -> Iterator[Line]:
    for one in result.differences:
        yield Line(f"{one.kind} {one.name}: was {one.before}, is {one.after}")
    if result.unexplained:
        yield Line(f"note: {result.unexplained}")
    yield Line("the files are the same byte for byte" if result.same_bytes else "the files differ")
