"""The result of ``trtbuild optimize`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, names, numbers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from trtbuild.jobs.optimize import NetworkSize, OptimizedFile, PassList
    from trtbuild.passes.driver import PassLog

__all__ = ["optimize_report", "pass_warnings", "passes_report"]


def optimize_report(source: str, done: OptimizedFile, *, explains: bool = False) -> Report:
    """Return the report: sizes before and after.

    Args:
        source: name of the file that was read.
        done: result of the passes.
        explains: whether to say which passes changed what, and which did not and why.
    """
    log, record = done.result.log, done.record
    rows = tuple(_size_rows(record.before, record.after))
    table = Table((*names(""), *numbers("before", "after")), rows)
    blocks = (table, Line(log.comparison)) if log.comparison else (table,)
    return Report(
        title=f"{source}, optimized",
        notes=tuple(map(Line, _explanation(log))) if explains else (),
        sections=(Section("Sizes", blocks),),
        data=record.to_json(),
    )


def passes_report(listed: PassList) -> Report:
    """Return the report that lists all passes."""
    rows = tuple(
        (
            one.name,
            "on request" if one.opt_in else "default",
            one.summary,
            ", ".join(one.aliases.values()),
        )
        for one in listed.passes
    )
    columns = names("pass", "runs", "what it does", "also called")
    sections = (Section("Passes", (Table(columns, rows),)),)
    return Report(title="graph passes", sections=sections, data=listed.to_json())


def _size_rows(before: NetworkSize, after: NetworkSize) -> list[tuple[str, str, str]]:
    """The rows of the table before / after: operators, parameters, work, files."""
    operators = sorted(set(before.op_types) | set(after.op_types))
    rows = [
        (op, str(before.op_types.get(op, 0)), str(after.op_types.get(op, 0)))
        for op in operators
        if before.op_types.get(op, 0) or after.op_types.get(op, 0)
    ]
    rows.append(("all nodes but Constant", str(before.num_nodes), str(after.num_nodes)))
    rows.append(("parameters", f"{before.parameters:,}", f"{after.parameters:,}"))
    rows.append(("parameter bytes", f"{before.weight_bytes:,}", f"{after.weight_bytes:,}"))
    rows.append(("multiply-accumulates", f"{before.macs:,}", f"{after.macs:,}"))
    rows.append(("file bytes", f"{before.num_bytes:,}", f"{after.num_bytes:,}"))
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
