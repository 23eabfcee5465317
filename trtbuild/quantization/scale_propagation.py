"""Scale propagation: a tensor without a scale or range takes it from a neighbour with the same values.

Implicit INT8 needs a scale for every tensor, a calibration has one only where Q/DQ go, and a cache of
another export has other names. Two rules fill the gaps exactly: data movement keeps the scale, and clipping
commutes with Relu, so the input of a Relu may be clipped like its output. Backwards, both rules hold only if
the tensor has no other reader; a Relu's input must not be an output of the network either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from trtbuild.model.constants import is_constant
from trtbuild.model.operators import moves_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

__all__ = ["Propagated", "propagate"]

T = TypeVar("T")

# Output and input have exactly the same values, so a scale may also go backwards.
_KEEPING = frozenset(
    {"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_RELU = "Relu"


@dataclass(frozen=True)
class Propagated(Generic[T]):
    """A scale or range taken from another tensor, that tensor's name, and the operators between."""

    value: T
    source: str
    through: tuple[str, ...]


def propagate(model: ir.Model, known: Mapping[str, T]) -> dict[str, Propagated[T]]:
    """Return scales (or ranges) for tensors of the main graph that are not in `known`.

    Args:
        model: the network.
        known: tensor name -> scale or range, of some of its tensors.

    Returns:
        Tensor name -> value and origin, for tensors not in `known`.
    """
    found: dict[str, Propagated[T]] = {}
    changed = True
    while changed:  # forwards and backwards until no further tensor is reached
        changed = False
        for node in model.graph:
            source = node.inputs[0] if node.inputs else None
            target = node.outputs[0] if node.outputs else None
            if source is None or target is None:
                continue
            if moves_values(node) or node.op_type == "Dropout":
                for output in node.outputs:
                    changed |= _hand_on(source, output, node.op_type, known, found)
            if _goes_backwards(node, source):
                changed |= _hand_on(target, source, node.op_type, known, found)
    return found


def _goes_backwards(node: ir.Node, source: ir.Value) -> bool:
    """Whether the scale of `node`'s output also fits its input `source`.

    Not if `source` has other readers. Nor before a Relu if `source` is an output of the network: it shows the
    values that the Relu clips.
    """
    if len(source.uses()) != 1:
        return False
    return node.op_type in _KEEPING or (node.op_type == _RELU and not source.is_graph_output())


def _hand_on(
    giver: ir.Value,
    taker: ir.Value,
    op_type: str,
    known: Mapping[str, T],
    found: dict[str, Propagated[T]],
) -> bool:
    have, want = giver.name or "", taker.name or ""
    if want in known or want in found or is_constant(taker):
        return False
    if have in known:
        found[want] = Propagated(known[have], have, (op_type,))
    elif have in found:
        given = found[have]
        found[want] = Propagated(given.value, given.source, (*given.through, op_type))
    else:
        return False
    return True
