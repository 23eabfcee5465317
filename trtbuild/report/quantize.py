"""The result of ``trtbuild quantize`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.plan import GroupKind
from trtbuild.report.model import Line, Report, Section, Table, names

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.jobs.quantize import PlacementList, QuantizedFile
    from trtbuild.plan import Decision, GroupRecord

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
        notes=(Line(f"{output}: {result.summary}"),),
        data=result.to_json(),
    )


def placement_report(model: str, placement: PlacementList) -> Report:
    """Return the report of where Q/DQ would go in the network of the file `model`."""
    sections = (Section("Nodes and groups of Q/DQ", (_table(placement),)),)
    return Report(title=f"INT8 in {model}", sections=sections, data=placement.to_json())


def _table(placement: PlacementList) -> Table:
    """Every node with the group of its Q/DQ, then the groups that only ONNX Runtime's form has."""
    others = [one for one in placement.groups if not GroupKind(one.kind).in_tensorrt_form]
    kinds = {one.name: one.kind for one in placement.groups if one not in others}
    rows = (
        *(
            (one.node, one.op_type, kinds.get(one.node, ""), _runs_in(one), one.reason)
            for one in placement.layers
        ),
        *((one.name, one.op_type, one.kind, _runs_in(one), one.reason) for one in others),
    )
    return Table(names("node", "operator", "group of Q/DQ", "runs in", "why"), rows)


def _runs_in(one: Decision | GroupRecord) -> str:
    return "INT8" if one.int8 else "float"
