"""``trtbuild inspect``: what an engine really runs in, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtbuild.cli.help import SectionedCommand
from trtbuild.cli.option_fields import Given, recipe_options
from trtbuild.cli.output import Output, output_options
from trtbuild.options.tensorrt import OpenOptions
from trtbuild.report.model import Line, Report, Section, Table, Tone, names

if TYPE_CHECKING:
    from trtbuild.jobs.inspect import Inspection, NodePrecision
    from trtbuild.runtime.tensorrt.inspector import EngineLayers

__all__ = ["command"]


@click.command(
    "inspect",
    cls=SectionedCommand,
    examples=(
        ("inspect model.plan", "what each layer runs in"),
        ("inspect model.plan --json", "the same for programs"),
    ),
)
@click.argument("engine", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--all", "show_all", is_flag=True, help="Every layer of the engine, reformats included."
)
@click.option(
    "--open", "open_it", is_flag=True, help="Ask the engine itself, not the manifest beside it."
)
@recipe_options(OpenOptions)
@output_options
def command(
    *, engine: Path, show_all: bool, open_it: bool, given: Given[OpenOptions], out: Output
) -> None:
    """Print what was asked of each layer of ENGINE, what it runs in, and why.

    ENGINE is a TensorRT plan, or the JSON of ``trtexec --exportLayerInfo``. The manifest beside a plan
    knows its layers, so that no GPU is needed; without one the plan is opened. Of a plan that was built
    without a GPU it knows what was asked of each layer.
    """
    from trtbuild.jobs.inspect import inspect_engine

    found = inspect_engine(engine, given.make(), ask=open_it)
    layers, nodes = found.layers, found.nodes
    out.show(
        Report(
            title=f"what {engine.name} runs in",
            sections=(Section("Layers", _lines(found, show_all=show_all)),),
            data={
                "precisions": layers.precision_counts(),
                "reformats": layers.num_reformats,
                "detailed": layers.detailed,
                "layers": layers.to_json(),
                "not_opened": found.not_opened,
                "nodes": [{**vars(node), "as_asked": node.as_asked} for node in nodes],
            },
        )
    )


def _lines(found: Inspection, *, show_all: bool) -> tuple[Line | Table, ...]:
    if found.not_opened:
        count = sum(node.asked == "INT8" for node in found.nodes)
        return (
            Line(f"{len(found.nodes)} nodes: INT8 was asked for {count}"),
            Line(
                f"note: the plan was built and never opened, so what runs is not known: {found.not_opened}"
            ),
            _asked_table(found.nodes),
        )
    layers, nodes = found.layers, found.nodes
    table = _layer_table(layers) if show_all or not nodes else _node_table(nodes)
    return (*_summary(layers, nodes), table)


def _asked_table(nodes: list[NodePrecision]) -> Table:
    return Table(
        names("node", "operator", "asked", "why"),
        tuple((node.node, node.op_type, node.asked, node.why) for node in nodes),
    )


def _summary(layers: EngineLayers, nodes: list[NodePrecision]) -> list[Line]:
    counts = ", ".join(f"{count} in {name}" for name, count in layers.precision_counts().items())
    lines = [f"{len(layers.layers)} layers: {counts or 'precisions not told'}"]
    if layers.num_reformats:
        lines.append(f"{layers.num_reformats} of them only convert formats or precisions")
    missed = [node for node in nodes if not node.as_asked]
    if missed:
        lines.append(f"{len(missed)} nodes were to be INT8 and are not")
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
