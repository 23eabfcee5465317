"""What an engine really runs in, from the engine itself or from what was written down of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, decoding
from trtbuild.files import file_digest
from trtbuild.records import load_json
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan, read_layers
from trtbuild.runtime.tensorrt.matching import Asked, match_nodes
from trtbuild.runtime.tensorrt.versions import manifest_of, product_of

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.runtime.tensorrt.matching import NodePrecision

__all__ = ["Inspection", "inspect_engine"]


@dataclass(frozen=True)
class Inspection:
    """The layers of an engine, and what became of each node of its network (empty when not known)."""

    layers: EngineLayers
    nodes: list[NodePrecision]


def inspect_engine(engine: Path, options: OpenOptions, *, ask: bool = False) -> Inspection:
    """Return the layers of an engine, held against what its manifest asked for.

    Args:
        engine: a TensorRT plan, or the JSON of ``trtexec --exportLayerInfo``.
        options: how a plan is opened.
        ask: open the plan although the manifest beside it knows its layers.

    Raises:
        InputError: the file cannot be read, or is no plan for this machine.
        MissingError: the plan has to be opened, and TensorRT or a GPU is missing.
    """
    manifest = _manifest(engine)
    damaged = f"the manifest beside '{engine}' is damaged"
    if engine.suffix == ".json":
        layers = read_layers(_text(engine))
    elif manifest and not ask:
        with decoding(InputError, damaged):
            layers = EngineLayers.from_json(manifest["engine"]["details"]["layers"])
    else:
        layers = inspect_plan(engine, options, product_of(engine))
    with decoding(InputError, damaged):
        decisions = [
            Asked(one["node"], one["op_type"], one["int8"], one["reason"])
            for one in manifest.get("layers", [])
        ]
    return Inspection(layers, match_nodes(layers, decisions))


def _manifest(engine: Path) -> dict[str, Any]:
    """The manifest beside a plan, if it belongs to this very file; else nothing."""
    path = manifest_of(engine)
    try:
        with decoding(InputError, "no manifest"):
            manifest: dict[str, Any] = load_json(path)
            layers = manifest["engine"]["details"]["layers"]
            same = manifest["files"][engine.name]["digest"] == file_digest(engine)
    except InputError:  # none, or not one of ours: the engine itself is asked
        return {}
    return manifest if same and layers else {}


def _text(path: Path) -> str:
    with decoding(InputError, f"'{path}' cannot be read"):
        return path.read_text(encoding="utf-8")
