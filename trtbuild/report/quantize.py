"""The result of ``trtbuild quantize`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.report.model import Line, Report, Section, Table, names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbuild.jobs.quantize import QuantizedFile
    from trtbuild.plan import Placement

__all__ = ["placement_report", "quantize_report"]


def quantize_report(model: str, result: QuantizedFile, output: Path | None) -> Report:
    """Return the report of a network that was written with Q/DQ.

    Args:
        model: name of the float network's file.
        result: the result.
        output: the written file.
    """
    return Report(
        title=f"{model} in INT8",
        notes=(Line(f"{output}: {result.record.summary}"),),
        data={
            "files": result.files,
            **result.record.details,
            "idle_patterns": result.idle_patterns,
        },
    )


def placement_report(model: str, placement: Placement) -> Report:
    """Return the report of where Q/DQ would go in the network of the file `model`."""
    listed = _listed(placement)
    sections = (Section("Nodes and groups of Q/DQ", (_table(listed),)),)
    return Report(title=f"INT8 in {model}", sections=sections, data=listed)


def _listed(placement: Placement) -> list[dict[str, Any]]:
    """Every node with the group of its Q/DQ, then the groups that only ONNX Runtime's form has."""
    kinds = {group.name: group.kind for group in placement.groups if group.in_tensorrt_form}
    nodes = [
        {"node": d.node, "op_type": d.op_type, "int8": d.int8, "reason": d.reason,
         "group": kinds.get(d.node)}
        for d in placement.decisions
    ]  # fmt: skip
    others = [
        {"node": g.name, "op_type": g.op_type, "int8": g.int8, "reason": g.reason, "group": g.kind}
        for g in placement.groups
        if not g.in_tensorrt_form
    ]
    return [*nodes, *others]


def _table(listed: Sequence[dict[str, Any]]) -> Table:
    rows = tuple(
        (
            one["node"],
            one["op_type"],
            one["group"] or "",
            "INT8" if one["int8"] else "float",
            one["reason"],
        )
        for one in listed
    )
    return Table(names("node", "operator", "group of Q/DQ", "runs in", "why"), rows)
