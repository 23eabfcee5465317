"""The result of ``trtbuild rebuild`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.diff import diff_blocks, figure_table
from trtbuild.report.model import Line, Report, Section, Tone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.jobs.rebuild import Rebuilt
    from trtbuild.report.model import Block

__all__ = ["rebuild_report"]


def rebuild_report(manifest: Path, result: Rebuilt) -> Report:
    """Return the report: differences from the build of `manifest`, for networks node by node."""
    return Report(
        title=f"{manifest.name}, built again",
        notes=tuple(_notes(result)),
        sections=(*_networks(result), Section("Figures", _figures(result))),
        data=result.to_json(),
    )


def _networks(result: Rebuilt) -> Iterator[Section]:
    for name, one in result.networks.items():
        yield Section(name, (Line(f"{name}, A as it was, B as it is:"), *diff_blocks(one)))


def _figures(result: Rebuilt) -> tuple[Block, ...]:
    """The figures of both builds, unless the engine, what it was judged on and the verdict are the same."""
    kinds = {one.kind for one in result.differences}
    is_same = result.same_bytes and not kinds & {"network", "data"}
    if is_same and result.verdicts[0] == result.verdicts[1]:
        return ()
    return (Line("A as it was, B as it is:"), figure_table(result.figures))


def _notes(result: Rebuilt) -> Iterator[Line]:
    for one in result.differences:
        yield Line(f"{one.kind} {one.name}: was {one.before}, is {one.after}")
    if result.unexplained:
        yield Line(f"note: {result.unexplained}")
    yield Line("the files are the same byte for byte" if result.same_bytes else "the files differ")
    before, after = result.verdicts
    if before and after and before != after:
        yield Line(f"verdict: was {before}, is {after}", Tone.NOTE)
    elif after:
        yield Line(f"verdict: {after}")
