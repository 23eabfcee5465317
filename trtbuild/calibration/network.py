"""Makes the observed tensors outputs of the network, and lists the tensors that can be observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.model import static_batch
from trtbuild.model.edits import tapped
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import POOLING
from trtbuild.model.traversal import values_of
from trtbuild.passes import infer_model

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["ObservedNetwork", "float_tensors", "observed_network", "pooling_inputs"]

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class ObservedNetwork:
    """A float network whose outputs are the observed tensors.

    Attributes:
        model: the network, or the path of its file, which other processes can open.
        tensors: names of the observed tensors: outputs and inputs of the network.
        static_batch: size of the batch axis if the network fixes it, else None.
    """

    model: ir.Model | Path = field(repr=False)
    tensors: tuple[str, ...]
    static_batch: int | None


def observed_network(
    model: ir.Model, tensors: Collection[str], beside: Collection[str] = ()
) -> ObservedNetwork:
    """Return a copy of `model` with `tensors` as outputs; nodes that only other outputs need are removed.

    If only inputs are observed, the original outputs stay.

    Args:
        model: the float network.
        tensors: names of the tensors to observe.
        beside: further tensors to make outputs, which are not observed.
    """
    found = tapped(model, {*tensors, *beside})
    return ObservedNetwork(found, tuple(tensors), static_batch(model))


def float_tensors(model: ir.Model) -> tuple[str, ...]:
    """Return the float inputs and inner tensors of the main graph, in order: what TensorRT 10 observes."""
    typed = model.clone()
    infer_model(typed)
    values = values_of(typed.graph)
    return tuple(value.name or "" for value in values if value.dtype in _FLOATS and value.name)


def pooling_inputs(model: ir.Model) -> dict[str, str]:
    """Return output -> input of each pooling layer; TensorRT 10 gives both the scale of the input."""
    return {
        node.outputs[0].name or "": node.inputs[0].name or ""
        for node in model.graph
        if node.op_type in POOLING and node.inputs and node.inputs[0] is not None
    }
