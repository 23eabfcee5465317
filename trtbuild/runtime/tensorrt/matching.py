"""What was asked of each ONNX node, against what the engine's layers do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbuild.runtime.tensorrt.inspector import EngineLayers, Layer

__all__ = ["INT8", "Asked", "NodePrecision", "match_nodes"]

INT8 = "INT8"


@dataclass(frozen=True)
class Asked:
    """What quantization decided for one ONNX node: whether it is to run in INT8, and why."""

    node: str
    op_type: str
    int8: bool
    reason: str


@dataclass(frozen=True)
class NodePrecision:
    """One ONNX node in an engine.

    Attributes:
        node: its name.
        op_type: its operator.
        asked: ``INT8`` or ``float``.
        ran: the precision of its layer; empty when TensorRT folded it away or does not tell.
        layer: the layer's name.
        tactic: the layer's kernel.
        why: why it runs in that precision.
    """

    node: str
    op_type: str
    asked: str
    ran: str
    layer: str
    tactic: str
    why: str

    @property
    def as_asked(self) -> bool:
        """Whether INT8 came out where it was asked for; nothing else counts as a miss."""
        return self.asked != INT8 or self.ran in (INT8, "")


def match_nodes(layers: EngineLayers, decisions: Sequence[Asked]) -> list[NodePrecision]:
    """Match the decisions of quantization with the layers of the engine.

    Args:
        layers: what the engine's inspector tells.
        decisions: one for each node of the network.
    """
    return [_matched(decision, layers.layer_of(decision.node)) for decision in decisions]


def _matched(decision: Asked, layer: Layer | None) -> NodePrecision:
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
