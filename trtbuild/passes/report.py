"""The result of an optimisation as text for a terminal and as data for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.passes.catalogue import aliases_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.model.stats import GraphStats
    from trtbuild.passes.driver import PassLog
    from trtbuild.passes.optimizer import OptimizeResult
    from trtbuild.passes.pass_base import Pass

__all__ = ["as_json", "explanation", "pass_rows", "size_rows"]


def size_rows(result: OptimizeResult) -> list[tuple[str, str, str]]:
    """Return the rows of the table before / after: operators, parameters, work."""
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


def explanation(log: PassLog) -> list[str]:
    """Say what fired where, what was left and why, and what was undone, a line each."""
    lines = []
    for name, notes in log.fired.items():
        lines.append(f"{name}: {len(notes)} changed, {log.seconds[name] * 1e3:.1f} ms")
        lines += [f"    {note.op_type} '{note.node}': {note.text}" for note in notes]
    for name, notes in log.declined.items():
        lines.append(f"{name}: {len(notes)} left")
        lines += [f"    {note.op_type} '{note.node}' stays: {note.text}" for note in notes]
    return lines + warnings(log)


def warnings(log: PassLog) -> list[str]:
    """Say what a user must know even without asking, a line each."""
    lines = [
        f"'{undone.name}' changed a result and was undone ({undone.reason}); it had changed "
        f"{', '.join(undone.nodes[:5]) or 'the graph'}. Please report it."
        for undone in log.rolled_back
    ]
    if log.undoing:
        lines.append(f"stopped: {', '.join(log.undoing)} undo each other. Disable one of them.")
    if log.capped:
        lines.append(f"stopped after {log.rounds} rounds, though the graph still changed.")
    return lines


def pass_rows(passes: Sequence[Pass]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table of passes: name, when it runs, what it does, other names."""
    return [
        (
            item.name,
            "on request" if item.opt_in else "default",
            item.describe().summary,
            ", ".join(aliases_of(item.name).values()),
        )
        for item in passes
    ]


def as_json(result: OptimizeResult) -> dict[str, Any]:
    """Return the result as JSON types: sizes, what each pass did and left, what was undone."""
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
