"""The float network with every quantized layer beside its float twin, both reading float inputs.

            x ──────────► Conv ──────► y                 as in the float network
            └─► Q ─► DQ ─► Conv(DQ(W)) ─► y_own          as in the quantized one

y_own minus y is the layer's *own* error. What the same layer's output in the quantized network differs
from y_own by is the error that it *inherits* from the layers before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError
from trtbuild.model.edits import add_initializer, tap, tapped
from trtbuild.model.graph_library import ir
from trtbuild.model.qdq import (
    activation_pairs,
    behind_activation,
    float_twins,
    is_qdq,
    quantized_nodes,
)
from trtbuild.model.traversal import has_bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Tap", "Taps", "own_output", "side_branches"]


@dataclass(frozen=True)
class Tap:
    """One quantized layer: names of its float, its own and its quantized output.

    Attributes:
        node: name of the layer in both networks.
        op_type: its operator.
        module: the PyTorch module that it came from, if the export recorded it; else empty.
        reference: its output's name in the float network.
        own: name of the side branch's output.
        quantized: its output's name in the quantized network.
    """

    node: str
    op_type: str
    module: str
    reference: str
    own: str
    quantized: str


@dataclass(frozen=True)
class Taps:
    """Two networks that give the layers' outputs.

    Attributes:
        reference: the float network with side branches; gives `Tap.reference`, `Tap.own` and the
            tensors of `activations`.
        quantized: the quantized network; gives `Tap.quantized`.
        taps: in the order of the network.
        activations: for each tensor before a Q/DQ pair, its name in the quantized network -> its name in
            `reference`.
    """

    reference: ir.Model
    quantized: ir.Model
    taps: tuple[Tap, ...]
    activations: Mapping[str, str]


def own_output(value: ir.Value) -> ir.Value:
    """Compare a layer at its own output, before any activation."""
    return value


def side_branches(
    reference: ir.Model,
    quantized: ir.Model,
    measured: Callable[[ir.Value], ir.Value] = behind_activation,
    layers: Callable[[ir.Model], Iterable[ir.Node]] = quantized_nodes,
) -> Taps:
    """Graft every quantized layer of `quantized` onto a copy of `reference`.

    Args:
        reference: the float network that `quantized` was made from.
        quantized: the network with Q/DQ, or with other weights.
        measured: maps a layer's output to the tensor that is compared.
        layers: picks the nodes of `quantized` that are grafted.

    Raises:
        ModelError: no quantized layer has a float twin in `reference`.
    """
    combined = reference.clone()
    graft = _Graft(combined, float_twins(quantized, combined), measured)
    taps = [one for node in layers(quantized) if (one := graft.tap(node)) is not None]
    if not taps:
        raise ModelError(
            "no layer that reads Q/DQ has a layer of the same name in the float network. Give the float "
            "network that the quantized one was made from."
        )
    sources = {
        name: graft.twin_of(pair.source) for name, pair in activation_pairs(quantized).items()
    }
    activations = {name: twin for name, twin in sources.items() if twin is not None}
    seen = [*(t.reference for t in taps), *(t.own for t in taps), *activations.values()]
    tap(combined, seen)
    return Taps(
        combined,
        tapped(quantized, [one.quantized for one in taps]),
        tuple(taps),
        activations,
    )


class _Graft:
    """Copies layers of the quantized network into the float one."""

    def __init__(
        self,
        combined: ir.Model,
        twins: Mapping[str, ir.Node],
        measured: Callable[[ir.Value], ir.Value],
    ) -> None:
        self._measured = measured
        self._graph = combined.graph
        self._twins = twins
        self._inputs = {value.name: value for value in combined.graph.inputs}
        self._copies: dict[ir.Value, ir.Value] = {}

    def tap(self, node: ir.Node) -> Tap | None:
        """Put a copy of `node` beside its float twin, on float inputs; None without a twin."""
        twin = self._twins.get(node.name or "")
        if twin is None or has_bodies(node):
            return None
        measured = self._measured(node.outputs[0])
        float_measured = self._measured(twin.outputs[0])
        activation = measured.producer()
        if (float_measured is twin.outputs[0]) != (measured is node.outputs[0]):
            measured, float_measured, activation = node.outputs[0], twin.outputs[0], node
        chain = [node] if activation is None or activation is node else [node, activation]
        # separate from `_copies`: other branches must read the float tensor, not this copy
        own: dict[ir.Value, ir.Value] = {}
        for link in chain:
            self._copy(link, own)
        return Tap(
            node=node.name or "",
            op_type=node.op_type,
            module=_module(node),
            reference=float_measured.name or "",
            own=own[measured].name or "",
            quantized=measured.name or "",
        )

    def twin_of(self, value: ir.Value) -> str | None:
        """Name of the float tensor that corresponds to `value` of the quantized network."""
        if value.name in self._inputs:
            return value.name
        node = value.producer()
        twin = self._twins.get(node.name or "") if node is not None else None
        if node is None or twin is None:
            return None
        return twin.outputs[list(node.outputs).index(value)].name

    def _bring(self, value: ir.Value | None) -> ir.Value | None:
        """The float tensor where `value` has a float twin; a copy where it is a Q, DQ, constant or else."""
        if value is None or value in self._copies:
            return self._copies.get(value) if value is not None else None
        node = value.producer()
        if node is None:
            self._copies[value] = self._inputs.get(value.name) or self._constant(value)
        elif not is_qdq(node) and (twin := self._twins.get(node.name or "")) is not None:
            self._copies[value] = twin.outputs[list(node.outputs).index(value)]
        else:
            self._copy(node, self._copies)
        return self._copies[value]

    def _copy(self, node: ir.Node, copies: dict[ir.Value, ir.Value]) -> None:
        inputs = [copies[value] if value in copies else self._bring(value) for value in node.inputs]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            attributes=list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=f"{node.name}__own",
        )
        for output, original in zip(copy.outputs, node.outputs):
            output.name = f"{original.name}__own"
            output.type, output.shape = original.type, original.shape
            copies[original] = output
        self._graph.append(copy)

    def _constant(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None, "what nothing makes is an input or a constant"
        return add_initializer(self._graph, f"{value.name}__own", value.const_value)


def _module(node: ir.Node) -> str:
    # written by torch.onnx: a Python list of the scopes from the root module down to the operator
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
    names = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    return names[-2] if len(names) > 1 else ""
