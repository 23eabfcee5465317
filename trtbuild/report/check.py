"""The result of ``trtbuild check`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.backends.tensorrt.refusals import WHOLE
from trtbuild.report.model import Check, Line, Outcome, Report, Section, Table, Tone, names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.check import NetworkCheck

__all__ = ["check_report"]


def check_report(result: NetworkCheck) -> Report:
    """Return the report: every refused node, why, and what can be done."""
    rows = tuple(
        (one.node or WHOLE, one.operator, one.reason, one.advice) for one in result.refused
    )
    table = Table(names("node", "operator", "refused because", "what can be done"), rows)
    return Report(
        title=result.model,
        facts={"parser": result.parser},
        notes=tuple(Line(issue, Tone.NOTE) for issue in result.known_issues),
        sections=(Section("Refused", (table, *_lines(result))),),
        checks=tuple(_checks(result)),
        verdict=result.ruling.why,
        ruling=result.ruling.word,
        data=result.to_json(),
    )


def _lines(result: NetworkCheck) -> Iterator[Line]:
    if result.instead:
        yield Line(
            f"this is the form for ONNX Runtime; TensorRT gets '{result.instead}' beside it",
            Tone.NOTE,
        )
    if result.needs_plugin:
        yield Line(f"need a plugin (--plugin LIB): {', '.join(result.needs_plugin)}")
    if result.unseen_behind:
        where = result.unseen_behind
        text = f"what reads '{where}' was not checked: type or rank of its outputs is not known"
        if where == WHOLE:
            text = "the rest was not checked: the parser names no node that could be left out"
        yield Line(text, Tone.NOTE)
    if result.build is not None and result.build.built:
        megabytes = result.build.plan_bytes / 1e6
        yield Line(f"built in {result.build.seconds:.1f} s, a plan of {megabytes:.1f} MB")
        for text in result.build.errors:
            yield Line(f"the builder said: {text}", Tone.NOTE)


def _checks(result: NetworkCheck) -> Iterator[Check]:
    for one in result.refused:
        operator = f" ({one.operator})" if one.operator else ""
        text = f"{one.node or 'the network'}{operator}: {one.reason}"
        yield Check("parser", result.model, one.node, Outcome.FAILED, text)
    if not result.refused:
        yield Check("parser", result.model, "parse", Outcome.PASSED, "every node is accepted")
    if result.build is not None:
        outcome = Outcome.PASSED if result.build.built else Outcome.FAILED
        text = result.build.reason or f"a plan in {result.build.seconds:.1f} s"
        yield Check("builder", result.model, "build", outcome, text)
