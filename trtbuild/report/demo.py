"""The result of ``trtbuild demo`` as a report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.report.engine import engine_report
from trtbuild.report.model import Cell, Line, Report, Section, Table, Tone, names, numbers
from trtbuild.titles import TENSORRT_FORM
from trtbuild.verification.ruling import SHIP

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.jobs.demo import Demonstration
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
    plan = done.after.also
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
            _both(done),
            Section(
                "What repaired it", tuple(map(Line, ("what repaired it:", *_moves(done.after))))
            ),
            Section("By hand", (Line(f"by hand, in {done.folder}: {done.command}"),)),
        ),
        files=files,
        verdict=done.after.ruling.why,
        ruling=done.after.ruling.word,
        data={
            "before": done.before.ruling,
            "after": done.after.ruling,
            "manifest": done.after.manifest,
            "report": page,
        },
    )


def demo_page(done: Demonstration) -> Report:
    """Return the report of the second build, with a comparison of both builds first."""
    report = engine_report(done.after)
    return replace(report, sections=(_both(done), *report.sections))


def _both(done: Demonstration) -> Section:
    return Section(
        "Broken and repaired",
        (
            Table(
                (*names("network"), *numbers("top-1, %", "SQNR, dB"), *names("verdict")),
                (
                    ("float", f"{_accuracy(done.before)[0]:.1f}", "", ""),
                    _row("INT8, TensorRT's entropy rule alone", done.before),
                    _row("INT8, trtbuild engine --max-top1-drop 1", done.after),
                ),
                "TensorRT's form, on images that calibration has not seen",
            ),
        ),
    )


def _row(title: str, built: EngineResult) -> tuple[Cell, ...]:
    word = built.ruling.word
    sqnr = built.comparisons[TENSORRT_FORM].outputs[0].sqnr_db
    assert sqnr is not None  # its output holds floats
    said = Line(word, Tone.GOOD if word == SHIP else Tone.BAD)
    return (title, f"{_accuracy(built)[1]:.1f}", f"{sqnr.value:.1f}", said)


def _accuracy(built: EngineResult) -> tuple[float, float]:
    """Top-1 of float and of TensorRT's form, in percent."""
    found = built.comparisons[TENSORRT_FORM].accuracy
    assert found is not None  # the demonstration has labels
    return found.reference_percent.value, found.candidate_percent.value


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
