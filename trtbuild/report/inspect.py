"""The result of ``trtbuild inspect`` as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.report.model import Line, Report, Section, Table, Tone, names
from trtbuild.wording import counted

if TYPE_CHECKING:
    from trtbuild.jobs.inspect import Inspection, NodePrecision
    from trtbuild.runtime.tensorrt.inspector import EngineLayers

__all__ = ["inspection_report"]


def inspection_report(engine: str, found: Inspection, *, every_layer: bool = False) -> Report:
    """Return the report: the precision asked for at each node, and the one that the engine runs.

    Args:
        engine: name of its file.
        found: information from the plan or its manifest.
        every_layer: whether to show the engine's layers, with reformats, instead of the network's nodes.
    """
    return Report(
        title=f"what {engine} runs in",
        sections=(Section("Layers", _blocks(found, every_layer=every_layer)),),
        data=found.record.to_json(),
    )


def _blocks(found: Inspection, *, every_layer: bool) -> tuple[Line | Table, ...]:
    if found.not_opened:
        count = sum(node.asked == "INT8" for node in found.nodes)
        return (
            Line(f"{counted(len(found.nodes), 'node')}: INT8 was asked for {count}"),
            Line(f"note: which kernels run is not known: {found.not_opened}"),
            _asked_table(found.nodes),
        )
    layers, nodes = found.layers, found.nodes
    table = _layer_table(layers) if every_layer or not nodes else _node_table(nodes)
    return (*_summary(layers, nodes), table)


def _asked_table(nodes: list[NodePrecision]) -> Table:
    return Table(
        names("node", "operator", "asked", "why"),
        tuple((node.node, node.op_type, node.asked, node.why) for node in nodes),
    )


def _summary(layers: EngineLayers, nodes: list[NodePrecision]) -> list[Line]:
    counts = ", ".join(f"{count} in {name}" for name, count in layers.precision_counts().items())
    lines = [f"{counted(len(layers.layers), 'layer')}: {counts or 'precisions not told'}"]
    if layers.num_reformats:
        lines.append(f"{layers.num_reformats} of them only convert formats or precisions")
    missed = [node for node in nodes if not node.as_asked]
    if missed:
        lines.append(f"{counted(len(missed), 'node')} not in INT8, though asked for")
    if not layers.detailed:
        lines.append("the plan tells names only; build with --profiling-verbosity detailed")
    return [Line(line) for line in lines]


def _node_table(nodes: list[NodePrecision]) -> Table:
    return Table(
        names("node", "operator", "asked", "ran", "kernel", "why"),
        tuple(
            (
                node.node,
                node.op_type,
                node.asked,
                node.ran if node.as_asked else Line(node.ran, Tone.BAD),
                node.tactic,
                node.why,
            )
            for node in nodes
        ),
    )


def _layer_table(layers: EngineLayers) -> Table:
    return Table(
        names("layer", "kind", "runs in", "kernel", "ONNX nodes"),
        tuple(
            (layer.name, layer.kind, layer.precision, layer.tactic, ", ".join(layer.nodes))
            for layer in layers.layers
        ),
    )
