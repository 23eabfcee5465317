"""The result of ``trtbuild demo`` as a report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.report.engine import engine_report
from trtbuild.report.model import Cell, Line, Report, Section, Table, Tone, names, numbers
from trtbuild.verification.ruling import SHIP

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.jobs.demo import DemoBuild, DemoFigures, Demonstration
    from trtbuild.result import EngineResult

__all__ = ["demo_page", "demo_report"]

_ABOUT = (
    "a small classifier whose hidden channels differ in size, as those of depthwise networks do; it is "
    "right in float, but INT8 with one scale per tensor breaks it"
)


def demo_report(done: Demonstration, page: Path) -> Report:
    """Return the report for a terminal: both builds, the moves that repaired the network, and the files.

    Args:
        done: both builds.
        page: path of the `demo_page`.
    """
    plan, figures = done.after.also, done.figures(page)
    files = {
        str(page): "the HTML report of the second build",
        str(done.after.manifest.parent / done.after.engine.path.name): "the engine",
        **({} if plan is None else {str(plan.engine.path): "a plan by NVIDIA's compiler, for RTX"}),
        str(done.after.manifest): "the record of the build",
    }
    return Report(
        title="an INT8 network, broken and repaired",
        facts={"network": _ABOUT},
        sections=(
            _both(figures),
            Section(
                "What repaired it", tuple(map(Line, ("what repaired it:", *_moves(done.after))))
            ),
            Section("By hand", (Line(f"by hand, in {done.folder}: {done.command}"),)),
        ),
        files=files,
        verdict=done.after.ruling.why,
        ruling=done.after.ruling.word,
        data=figures.to_json(),
    )


def demo_page(done: Demonstration, page: Path) -> Report:
    """Return the report of the second build, with a comparison of both builds first."""
    report = engine_report(done.after)
    return replace(report, sections=(_both(done.figures(page)), *report.sections))


def _both(figures: DemoFigures) -> Section:
    return Section(
        "Broken and repaired",
        (
            Table(
                (*names("network"), *numbers("top-1, %", "SQNR, dB"), *names("verdict")),
                (
                    ("float", f"{figures.before.accuracy.reference_percent.value:.1f}", "", ""),
                    _row("INT8, TensorRT's entropy rule alone", figures.before),
                    _row("INT8, trtbuild engine --max-top1-drop 1", figures.after),
                ),
                "TensorRT's form, on images that calibration has not seen",
            ),
        ),
    )


def _row(title: str, built: DemoBuild) -> tuple[Cell, ...]:
    word = built.ruling.word
    said = Line(word, Tone.GOOD if word == SHIP else Tone.BAD)
    top1 = built.accuracy.candidate_percent.value
    return (title, f"{top1:.1f}", f"{built.sqnr_db.value:.1f}", said)


def _moves(built: EngineResult) -> list[str]:
    """The moves made on the network, and the steps that a search kept, if there was one."""
    found = [
        part
        for record in built.artifact.history
        if record.stage == "moves"
        for part in record.summary.split("; ")
    ]
    searched = (
        [] if built.tuned is None else [s.step for s in built.tuned.steps if s.kept and s.what]
    )
    return [f"{number}. {what}" for number, what in enumerate([*found, *searched], 1)]
