"""What an engine really runs in, from the engine itself or from what was written down of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, MissingError, decoding
from trtbuild.files import file_digest
from trtbuild.records import load_json
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan, read_layers
from trtbuild.runtime.tensorrt.matching import INT8, Asked, NodePrecision, match_nodes
from trtbuild.runtime.tensorrt.versions import manifest_of, product_of

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.options.tensorrt import OpenOptions

__all__ = ["Inspection", "inspect_engine"]


@dataclass(frozen=True)
class Inspection:
    """The layers of an engine, and what became of each node of its network (empty when not known).

    Attributes:
        layers: empty where the plan was built and never opened.
        nodes: what was asked of each node, and what it runs in.
        not_opened: why the layers are not known, where only the manifest could be asked.
    """

    layers: EngineLayers
    nodes: list[NodePrecision]
    not_opened: str = ""


@dataclass(frozen=True)
class _Record:
    """What the manifest beside a plan says of it; nothing where there is none, or it is of another file."""

    manifest: dict[str, Any]
    engine: dict[str, Any]

    @property
    def layers(self) -> list[Any]:
        """The layers that were seen when the plan was built; empty where it was not opened then."""
        return list(self.engine.get("details", {}).get("layers", []))


def inspect_engine(engine: Path, options: OpenOptions, *, ask: bool = False) -> Inspection:
    """Return the layers of an engine, held against what its manifest asked for.

    A plan that was built where it could not be opened is opened here if that is possible; else what
    its manifest asked of each node is all that is known.

    Args:
        engine: a TensorRT plan, or the JSON of ``trtexec --exportLayerInfo``.
        options: how a plan is opened.
        ask: open the plan whatever the manifest beside it knows.

    Raises:
        InputError: the file cannot be read, or is no plan for this machine.
        MissingError: the plan has to be opened, and TensorRT or a GPU is missing.
    """
    if engine.suffix == ".json":
        return Inspection(read_layers(_text(engine)), [])
    record = _record(engine)
    damaged = f"the manifest beside '{engine}' is damaged"
    with decoding(InputError, damaged):
        decisions = [
            Asked(one["node"], one["op_type"], one["int8"], one["reason"])
            for one in record.manifest.get("layers", [])
        ]
    not_opened = ""
    if record.layers and not ask:
        with decoding(InputError, damaged):
            layers = EngineLayers.from_json(record.layers)
    else:
        try:
            layers = inspect_plan(engine, options, product_of(engine))
        except MissingError as error:
            if ask:
                raise
            if not record.engine:
                raise MissingError(f"{error} {_without_manifest(engine)}") from error
            layers, not_opened = EngineLayers((), detailed=False), str(error)
    if not_opened:
        return Inspection(layers, [_as_asked(one) for one in decisions], not_opened)
    return Inspection(layers, match_nodes(layers, decisions))


def _as_asked(asked: Asked) -> NodePrecision:
    wanted = INT8 if asked.int8 else "float"
    return NodePrecision(asked.node, asked.op_type, wanted, "", "", "", asked.reason)


def _without_manifest(engine: Path) -> str:
    path = manifest_of(engine)
    state = "belongs to another file" if path.exists() else "is not there"
    return f"Without one only the manifest of its build can tell, and '{path}' {state}."


def _record(engine: Path) -> _Record:
    """What the manifest beside a plan says, if it belongs to this very file; else nothing."""
    try:
        with decoding(InputError, "no manifest"):
            manifest: dict[str, Any] = load_json(manifest_of(engine))
            engines = [one for one in (manifest["engine"], manifest.get("also")) if one]
            (record,) = [one for one in engines if one["file"] == engine.name]
            same = manifest["files"][engine.name]["digest"] == file_digest(engine)
    except InputError:  # none, or not one of ours: the engine itself is asked
        same = False
    return _Record(manifest, record) if same else _Record({}, {})


def _text(path: Path) -> str:
    with decoding(InputError, f"'{path}' cannot be read"):
        return path.read_text(encoding="utf-8")
