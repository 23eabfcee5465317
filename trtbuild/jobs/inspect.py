"""The precision that an engine really runs in, from the engine itself or from its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.errors import InputError, MissingError, decoding
from trtbuild.files import check_is_file, content_of
from trtbuild.json_codec import Document
from trtbuild.manifest import manifest_beside
from trtbuild.runtime.manifest_beside import manifest_of
from trtbuild.runtime.tensorrt.inspector import EngineLayers, inspect_plan, read_layers
from trtbuild.runtime.tensorrt.versions import product_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trtbuild.options.tensorrt import OpenOptions
    from trtbuild.plan import Decision
    from trtbuild.runtime.tensorrt.inspector import Layer

__all__ = ["Inspection", "InspectionRecord", "NodePrecision", "inspect_engine", "match_nodes"]

INT8 = "INT8"

_AT_RUN = "ONNX Runtime and TensorRT choose kernels when they get this network"


@dataclass(frozen=True)
class NodePrecision:
    """One ONNX node in an engine.

    Attributes:
        node: its name.
        op_type: its operator.
        asked: ``INT8`` or ``float``.
        ran: precision of its layer; empty if TensorRT folded it away or does not say.
        layer: the layer's name.
        tactic: the layer's kernel.
        why: why it runs in that precision.
        as_asked: whether INT8 runs where it was asked for; nothing else counts as a miss.
    """

    node: str
    op_type: str
    asked: str
    ran: str
    layer: str
    tactic: str
    why: str
    as_asked: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "as_asked", self.asked != INT8 or self.ran in (INT8, ""))


@dataclass(frozen=True)
class InspectionRecord(Document):
    """The precision that each layer of an engine runs in.

    Attributes:
        precisions: precision -> number of layers that compute in it.
        reformats: number of layers that only convert.
        detailed: whether the engine says more of its layers than their names.
        layers: all layers, in the order of execution.
        not_opened: why layers are not known; empty if they are.
        nodes: for each node of the network, the precision that was asked for, and the one that runs.
    """

    SCHEMA = "trtbuild.inspection"

    precisions: Mapping[str, int]
    reformats: int
    detailed: bool
    layers: tuple[Layer, ...]
    not_opened: str
    nodes: tuple[NodePrecision, ...]


@dataclass(frozen=True)
class Inspection:
    """The layers of an engine, and the result for each node of its network (empty if not known).

    Attributes:
        layers: empty if the plan was built and never opened.
        nodes: for each node, the precision that was asked for, and the one that runs.
        not_opened: why only the manifest could be used and layers are not known: a network has no layers,
            or a plan was built where it cannot be opened.
    """

    layers: EngineLayers
    nodes: list[NodePrecision]
    not_opened: str = ""

    @property
    def record(self) -> InspectionRecord:
        """The part that programs read."""
        return InspectionRecord(
            precisions=self.layers.precision_counts(),
            reformats=self.layers.num_reformats,
            detailed=self.layers.detailed,
            layers=self.layers.layers,
            not_opened=self.not_opened,
            nodes=tuple(self.nodes),
        )


def inspect_engine(engine: Path, options: OpenOptions, *, ask: bool = False) -> Inspection:
    """Return the layers of an engine, compared with the requests in its manifest.

    A plan that could not be opened where it was built is opened here if that is possible; else only the
    manifest's request for each node is known.

    Args:
        engine: a TensorRT plan, an ONNX engine beside its manifest, or the JSON of ``trtexec
            --exportLayerInfo``.
        options: how to open a plan.
        ask: whether to open the plan even if its manifest has the layers.

    Raises:
        InputError: the file cannot be read, is not a plan for this machine, or is an ONNX network without a
            manifest.
        MissingError: the plan must be opened, and TensorRT or a GPU is missing.
    """
    if engine.suffix == ".json":
        return Inspection(read_layers(_text(engine), f"'{engine}'"), [])
    check_is_file("the engine", engine)
    manifest = manifest_beside(engine)
    decisions = () if manifest is None else manifest.layers
    if engine.suffix == ".onnx":
        if manifest is None:
            raise InputError(f"'{engine}' is a network, of which {_only_manifest(engine)}")
        return _unseen(decisions, _AT_RUN)
    record = None if manifest is None else manifest.engine_in(engine.name)
    seen = [] if record is None else record.details.get("layers")
    if seen and not ask:
        with decoding(InputError, f"the manifest beside '{engine}' is damaged"):
            layers = EngineLayers.from_json(seen)
        return Inspection(layers, match_nodes(layers, decisions))
    try:
        layers = inspect_plan(engine, options, product_of(engine))
    except MissingError as error:
        if ask:
            raise
        if record is None:
            raise MissingError(f"{error} Without one {_only_manifest(engine)}") from error
        return _unseen(decisions, str(error))
    return Inspection(layers, match_nodes(layers, decisions))


def _unseen(decisions: Sequence[Decision], why: str) -> Inspection:
    """The requests for each node, for the case that no layers are known."""
    return Inspection(EngineLayers((), detailed=False), list(map(_as_asked, decisions)), why)


def _as_asked(asked: Decision) -> NodePrecision:
    wanted = INT8 if asked.int8 else "float"
    return NodePrecision(asked.node, asked.op_type, wanted, "", "", "", asked.reason)


def _only_manifest(engine: Path) -> str:
    path = manifest_of(engine)
    state = "belongs to another file" if path.exists() else "is not there"
    return f"only the manifest of its build can tell, and '{path}' {state}."


def _text(path: Path) -> str:
    with decoding(InputError, f"'{path}' cannot be read"):
        return content_of(path).decode()


def match_nodes(layers: EngineLayers, decisions: Sequence[Decision]) -> list[NodePrecision]:
    """Match the decisions of quantization with the layers of the engine.

    Args:
        layers: layers from the engine's inspector.
        decisions: one for each node of the network.
    """
    return [_matched(decision, layers.layer_of(decision.node)) for decision in decisions]


def _matched(decision: Decision, layer: Layer | None) -> NodePrecision:
    asked = INT8 if decision.int8 else "float"
    ran = layer.precision if layer else ""
    return NodePrecision(
        node=decision.node,
        op_type=decision.op_type,
        asked=asked,
        ran=ran,
        layer=layer.name if layer else "",
        tactic=layer.tactic if layer else "",
        why=_why(asked, ran, decision.reason, layer),
    )


def _why(asked: str, ran: str, reason: str, layer: Layer | None) -> str:
    if layer is None:
        return "folded into another layer, or removed"
    if asked == INT8 and ran not in (INT8, ""):
        return (
            "TensorRT chose a float kernel: none in INT8 was faster or fits, or a range is missing"
        )
    if asked != INT8 and ran == INT8:
        return "part of an INT8 layer"
    return reason
