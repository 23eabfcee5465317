"""The backward network: an ONNX network that also computes gradients of its outputs by inner tensors.

With v a tensor of each output's shape that the caller feeds, it computes d<v, out> / dx: one run gives the
gradients of one number by all tensors. It consists of ordinary ONNX nodes, so it needs only ONNX Runtime and
runs wherever the network runs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError
from trtbuild.gradients.reverse import Reverse, is_float, read_by, stops, varying
from trtbuild.gradients.rules import OF_UNKNOWN_SIZE
from trtbuild.gradients.writer import Writer
from trtbuild.model.edits import remove_unread, set_outputs
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model
from trtbuild.model.opset import opset_of, raise_opset
from trtbuild.model.traversal import tensors_by_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Backward", "backward_network", "differentiable_outputs"]

# The oldest opset in which the nodes of the rules are valid, and the first that can add up by index.
_OLDEST = 13
_ADDS_BY_INDEX = 16


@dataclass(frozen=True)
class Backward:
    """A network that computes tensors of another network and their gradients.

    Attributes:
        model: its inputs are those of the network and `seeds`; its outputs are the requested tensors that a
            node computes, under their names, and `gradients`.
        seeds: output of the network -> the input for its v, of that output's type and shape.
        gradients: tensor -> the output that is its gradient d<v, out> / dx, of the tensor's type and shape.
        incomplete: tensor in `gradients` -> why part of its gradient is missing.
        unreached: tensor without a gradient -> why.
    """

    model: ir.Model
    seeds: Mapping[str, str]
    gradients: Mapping[str, str]
    incomplete: Mapping[str, str]
    unreached: Mapping[str, str]


def backward_network(
    model: ir.Model, tensors: Iterable[str], outputs: Sequence[str] | None = None
) -> Backward:
    """Return the network that computes `tensors` and their gradients; `model` does not change.

    It computes only what these need. Batch and other dims may be dynamic. At kinks and ties the
    derivative is that of one side; comparisons and roundings have gradient zero.

    Args:
        model: a float network from `trtbuild.model.read_model`, of opset 13 or newer.
        tensors: names of tensors of its main graph. Inputs and constants may be among them; they get a
            gradient, but are not outputs themselves.
        outputs: names of the float tensors that are differentiated; by default
            `differentiable_outputs`.

    Raises:
        ModelError: a tensor does not exist, an output is not floating-point, or the opset is too old.
    """
    copy = _prepared(model)
    values = tensors_by_name(copy.graph)
    names = tuple(dict.fromkeys(tensors))
    ends = tuple(differentiable_outputs(model) if outputs is None else dict.fromkeys(outputs))
    _check(values, names, ends)
    write = Writer(copy)
    nodes = list(copy.graph)
    wanted = {name: values[name] for name in names if is_float(values[name])}
    back = Reverse(write, varying(nodes, set(wanted.values())))
    seeds = {end: _seed(write, back, values[end]) for end in ends}
    back.through(nodes)
    return _result(write, back, values, names, seeds)


def _prepared(model: ir.Model) -> ir.Model:
    """A copy with inferred types and shapes, of an opset that can add up by index if it can be raised."""
    if opset_of(model) < _OLDEST:
        raise ModelError(
            f"gradients need opset {_OLDEST} or newer, and the network has {opset_of(model)}; read it with "
            "trtbuild.model.read_model, which raises it."
        )
    copy = model.clone()
    if opset_of(copy) < _ADDS_BY_INDEX:
        with contextlib.suppress(ModelError):  # the rules that need it report it
            raise_opset(copy, _ADDS_BY_INDEX)
    infer_model(copy)
    return copy


def _check(values: Mapping[str, ir.Value], tensors: Sequence[str], ends: Sequence[str]) -> None:
    unknown = [name for name in (*tensors, *ends) if name not in values]
    if unknown:
        raise ModelError(
            f"the network has no tensor '{unknown[0]}' outside of the bodies of its nodes; "
            "'trtbuild inspect' lists what it has."
        )
    for name in ends:
        if not is_float(values[name]):
            raise ModelError(
                f"'{name}' is not floating-point, so it has no gradient; name a float tensor before it."
            )


def _seed(write: Writer, back: Reverse, end: ir.Value) -> str:
    seed = ir.Value(name=write.fresh(f"{end.name}_seed"), type=end.type, shape=end.shape)
    write.model.graph.inputs.append(seed)
    back.start(end, seed)
    assert seed.name is not None
    return seed.name


def _result(
    write: Writer,
    back: Reverse,
    values: Mapping[str, ir.Value],
    names: Sequence[str],
    seeds: Mapping[str, str],
) -> Backward:
    graph = write.model.graph
    gradients: dict[str, str] = {}
    unreached: dict[str, str] = {}
    outputs: list[ir.Value] = []
    for name in names:
        value = values[name]
        total = back.total(value) if is_float(value) else None
        if total is None:
            unreached[name] = _why_unreached(back, value)
            continue
        gradient = _as_output(write, total, value, outputs)
        gradients[name] = gradient.name or ""
        if value.producer() is not None:
            outputs.append(value)
        outputs.append(gradient)
    set_outputs(graph, outputs)
    remove_unread(write.model)
    incomplete = {
        name: back.missing[values[name]] for name in gradients if values[name] in back.missing
    }
    return Backward(write.model, seeds, gradients, incomplete, unreached)


def _as_output(
    write: Writer, total: ir.Value, value: ir.Value, outputs: Sequence[ir.Value]
) -> ir.Value:
    """Return `total` as an output of its own, through an Identity if it is an input or an output already."""
    if total.producer() is None or total in outputs:
        total = write("Identity", total, like=value)
    total.name = write.fresh(f"{value.name}_gradient")
    total.type, total.shape = value.type, value.shape
    return total


def _why_unreached(back: Reverse, value: ir.Value) -> str:
    if not is_float(value):
        return "it is not floating-point"
    return back.missing.get(value, "no output depends on it")


def differentiable_outputs(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the last float tensors that can be differentiated, in the network's order.

    In general these are the outputs. An output that is not float, or whose size depends on values
    (NonMaxSuppression, NonZero), is replaced by the float tensors it is computed from. Beside the outputs,
    the float inputs of operators that choose (ArgMax) or have no rule (LSTM) are returned, since no gradient
    passes these operators.
    """
    copy = model.clone()
    infer_model(copy)
    nodes = list(copy.graph)
    varied = varying(nodes, set(copy.graph.inputs))
    behind = varying(nodes, {v for n in nodes if _is_of_unknown_size(n) for v in n.outputs})
    found: set[ir.Value] = set()
    seen: set[tuple[ir.Value, bool]] = set()
    waiting = [(value, True) for value in copy.graph.outputs]
    while waiting:
        value, last = waiting.pop()
        if last and is_float(value) and value not in behind:
            found.add(value)
            last = False
        producer = value.producer()
        if producer is None or (value, last) in seen:
            continue
        seen.add((value, last))
        ends = last or stops(producer, opset_of(copy))
        waiting.extend((one, ends) for one in read_by(producer) if one in varied)
    return tuple(v.name for node in nodes for v in node.outputs if v in found and v.name)


def _is_of_unknown_size(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type in OF_UNKNOWN_SIZE
