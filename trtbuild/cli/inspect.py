"""``trtbuild inspect``: what an engine really runs in, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from trtbuild.cli.output import Output, output_options
from trtbuild.errors import InputError
from trtbuild.files import file_digest
from trtbuild.runtime.cuda import PROVIDERS
from trtbuild.runtime.tensorrt import OpenOptions
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan, read_layers
from trtbuild.runtime.tensorrt.matching import match_nodes

if TYPE_CHECKING:
    from trtbuild.runtime.tensorrt.matching import NodeRow

__all__ = ["command"]


@click.command("inspect")
@click.argument("engine", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--all", "show_all", is_flag=True, help="Every layer of the engine, reformats included."
)
@click.option(
    "--open", "open_it", is_flag=True, help="Ask the engine itself, not the manifest beside it."
)
@click.option("--allow-host-code", is_flag=True, help="Open a plan that holds host code.")
@click.option("--cuda", type=click.Choice(["auto", *PROVIDERS]), default="auto", show_default=True,
              help="Package that reaches the GPU.")  # fmt: skip
@output_options
def command(
    *, engine: Path, show_all: bool, open_it: bool, allow_host_code: bool, cuda: str, out: Output
) -> None:
    """Print what was asked of each layer of ENGINE, what it runs in, and why.

    ENGINE is a TensorRT plan, or the JSON of ``trtexec --exportLayerInfo``. The manifest beside a plan
    knows its layers, so that no GPU is needed; without one the plan is opened.
    """
    manifest = _manifest(engine)
    if engine.suffix == ".json":
        layers = read_layers(_text(engine))
    elif manifest and not open_it:
        layers = EngineLayers.from_json(manifest["engine"]["details"]["layers"])
    else:
        layers = inspect_plan(engine, OpenOptions(allow_host_code=allow_host_code, cuda=cuda))
    rows = match_nodes(layers, manifest.get("layers", []))
    out.say(*_summary(layers, rows))
    if show_all or not rows:
        out.say(_layer_table(layers))
    else:
        out.say(_node_table(rows))
    out.result(
        {
            "precisions": layers.precision_counts(),
            "reformats": layers.num_reformats,
            "detailed": layers.detailed,
            "layers": layers.to_json(),
            "nodes": [{**vars(row), "as_asked": row.as_asked} for row in rows],
        }
    )


def _manifest(engine: Path) -> dict[str, Any]:
    """The manifest beside a plan, if it belongs to this very file; else nothing."""
    path = engine.with_suffix(".manifest.json")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        layers = manifest["engine"]["details"]["layers"]
        same = manifest["files"][engine.name]["digest"] == file_digest(engine)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return manifest if same and layers else {}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read: {error}.") from error


def _summary(layers: EngineLayers, rows: list[NodeRow]) -> list[str]:
    counts = ", ".join(f"{count} in {name}" for name, count in layers.precision_counts().items())
    lines = [f"{len(layers.layers)} layers: {counts or 'precisions not told'}"]
    if layers.num_reformats:
        lines.append(f"{layers.num_reformats} of them only convert formats or precisions")
    missed = [row for row in rows if not row.as_asked]
    if missed:
        lines.append(f"{len(missed)} nodes were to be INT8 and are not")
    if not layers.detailed:
        lines.append("the plan tells names only; build with --profiling-verbosity detailed")
    return lines


def _node_table(rows: list[NodeRow]) -> Table:
    table = Table("node", "operator", "asked", "ran", "kernel", "why")
    for row in rows:
        ran = row.ran if row.as_asked else f"[bold red]{row.ran}[/]"
        table.add_row(
            escape(row.node), row.op_type, row.asked, ran, escape(row.tactic), escape(row.why)
        )
    return table


def _layer_table(layers: EngineLayers) -> Table:
    table = Table("layer", "kind", "runs in", "kernel", "ONNX nodes")
    for layer in layers.layers:
        table.add_row(
            escape(layer.name),
            layer.kind,
            layer.precision,
            escape(layer.tactic),
            escape(", ".join(layer.nodes)),
        )
    return table
