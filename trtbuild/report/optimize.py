"""The result of ``trtbuild optimize`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.passes.catalogue import aliases_of
from trtbuild.report.model import Line, Report, Section, Table, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.jobs.optimize import OptimizedFile
    from trtbuild.model.stats import GraphStats
    from trtbuild.passes.driver import PassLog
    from trtbuild.passes.optimizer import OptimizeResult
    from trtbuild.passes.pass_base import Pass

__all__ = ["optimize_report", "pass_warnings", "passes_report"]


def optimize_report(source: str, done: OptimizedFile, *, explains: bool = False) -> Report:
    """Return the report: sizes before and after.

    Args:
        source: name of the file that was read.
        done: result of the passes.
        explains: whether to say which passes changed what, and which did not and why.
    """
    log, before, after = done.result.log, done.bytes_before, done.bytes_after
    rows = (*_size_rows(done.result), ("file bytes", f"{before:,}", f"{after:,}"))
    table = Table((*names(""), *numbers("before", "after")), rows)
    blocks = (table, Line(log.comparison)) if log.comparison else (table,)
    return Report(
        title=f"{source}, optimized",
        notes=tuple(map(Line, _explanation(log))) if explains else (),
        sections=(Section("Sizes", blocks),),
        data=_as_json(done.result) | {"file_bytes": {"before": before, "after": after}},
    )


def passes_report(passes: Sequence[Pass]) -> Report:
    """Return the report that lists `passes`."""
    rows = tuple(_pass_rows(passes))
    columns = names("pass", "runs", "what it does", "also called")
    data = [dict(zip(("name", "runs", "summary", "aliases"), row)) for row in rows]
    sections = (Section("Passes", (Table(columns, rows),)),)
    return Report(title="graph passes", sections=sections, data=data)


def _size_rows(result: OptimizeResult) -> list[tuple[str, str, str]]:
    """The rows of the table before / after: operators, parameters, work."""
    before, after = result.before, result.after
    operators = sorted(set(before.nodes) | set(after.nodes))
    rows = [
        (op, str(before.nodes.get(op, 0)), str(after.nodes.get(op, 0)))
        for op in operators
        if before.nodes.get(op, 0) or after.nodes.get(op, 0)
    ]
    rows.append(("all nodes but Constant", str(before.node_count), str(after.node_count)))
    rows.append(("parameters", f"{before.parameters:,}", f"{after.parameters:,}"))
    rows.append(("parameter bytes", f"{before.parameter_bytes:,}", f"{after.parameter_bytes:,}"))
    rows.append(("multiply-accumulates", f"{before.macs:,}", f"{after.macs:,}"))
    return rows


def _explanation(log: PassLog) -> list[str]:
    """Changes, declined matches with the reason, and undone passes, one line each."""
    lines = []
    for name, notes in log.fired.items():
        lines.append(f"{name}: {len(notes)} changed, {log.seconds[name] * 1e3:.1f} ms")
        lines += [f"    {note.op_type} '{note.node}': {note.text}" for note in notes]
    for name, notes in log.declined.items():
        lines.append(f"{name}: {len(notes)} left")
        lines += [f"    {note.op_type} '{note.node}' stays: {note.text}" for note in notes]
    return lines + pass_warnings(log)


def pass_warnings(log: PassLog) -> list[str]:
    """Return what a user must know even without asking, one line each."""
    lines = [
        f"'{undone.name}' changed a result and was undone ({undone.reason}); it had changed "
        f"{', '.join(undone.nodes[:5]) or 'the graph'}. Please report it."
        for undone in log.rolled_back
    ]
    if log.undoing:
        lines.append(f"stopped: {', '.join(log.undoing)} undo each other. Disable one of them.")
    if log.capped:
        lines.append(
            f"stopped after {counted(log.rounds, 'round')}, though the graph still changed."
        )
    return lines


def _pass_rows(passes: Sequence[Pass]) -> list[tuple[str, str, str, str]]:
    """The rows of the table of passes: name, when it runs, what it does, other names."""
    return [
        (
            item.name,
            "on request" if item.opt_in else "default",
            item.describe().summary,
            ", ".join(aliases_of(item.name).values()),
        )
        for item in passes
    ]


def _as_json(result: OptimizeResult) -> dict[str, Any]:
    """JSON types: sizes, changes and declined matches of each pass, undone passes."""
    log = result.log
    return {
        "before": _stats(result.before),
        "after": _stats(result.after),
        "rounds": log.rounds,
        "comparison": log.comparison,
        "passes": {
            name: {
                "seconds": round(seconds, 6),
                "changes": [vars(note) for note in log.fired.get(name, ())],
                "declined": [vars(note) for note in log.declined.get(name, ())],
            }
            for name, seconds in log.seconds.items()
        },
        "undoing": list(log.undoing),
        "capped": log.capped,
        "rolled_back": [
            {"pass": undone.name, "nodes": list(undone.nodes), "reason": undone.reason}
            for undone in log.rolled_back
        ],
    }


def _stats(stats: GraphStats) -> dict[str, Any]:
    return {
        "nodes": dict(stats.nodes),
        "node_count": stats.node_count,
        "parameters": stats.parameters,
        "parameter_bytes": stats.parameter_bytes,
        "macs": stats.macs,
    }
