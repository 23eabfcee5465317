"""Names nodes by module paths and tensors after the nodes; removes what refers to this machine.

The exporter names nodes ``node_Conv_753`` and writes the module path into each node's metadata, beside
absolute paths of source files. Here a node gets that path as its name, and the metadata is removed:

    layer1.0.conv1              the one node of a torch.nn module, or the weighted one of several
    layer1.0.attn/Softmax       any other node of a module
    layer1.0.relu_1             the second call of the same module
    layer1.0.conv1_output_0     the first output of a node
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trtbuild.errors import OptionError
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import WEIGHTED
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from trtbuild.pytorch.spec import InputSpec

__all__ = ["name_by_modules", "name_dims", "name_outputs", "strip_metadata"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_ALSO_OUTPUT = "_orig"
"""What the exporter adds to the name of an input that the module also gives as an output."""


@dataclass(frozen=True)
class _Origin:
    """Where a node comes from: the module's path, and the operator call within it."""

    path: str
    call: str


def name_by_modules(model: ir.Model, module: nn.Module) -> None:
    """Rename nodes, intermediate tensors and weights of `model` after the modules of `module`."""
    modules = dict(module.named_modules())
    origins = {node: _origin(node, modules) for node in model.graph}
    bare = _bare_names(origins, modules)
    taken: Counter[str] = Counter()
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for node, origin in origins.items():
        name = origin.path if node in bare else f"{origin.path}/{node.op_type}".lstrip("/")
        node.name = _unique(name, taken)
        if node in bare and _is_weighted(node):
            _name_weight(node, origin.path, model.graph)
        for index, value in enumerate(node.outputs):
            if value.name and value.name not in fixed:
                value.name = f"{node.name}_output_{index}"


def _origin(node: ir.Node, modules: Mapping[str, nn.Module]) -> _Origin:
    text = node.metadata_props.get(_SCOPES, "[]")
    scopes = [str(scope) for scope in ast.literal_eval(text)] if text.startswith("[") else []
    inner = next(
        (scope for scope in reversed(scopes[:-1]) if scope.partition("@")[0] in modules), ""
    )
    return _Origin(inner.partition("@")[0], scopes[-1] if scopes else "")


def _bare_names(
    origins: Mapping[ir.Node, _Origin], modules: Mapping[str, nn.Module]
) -> set[ir.Node]:
    """The nodes that get the bare module path as their name.

    In a layer these are its weighted nodes. In another torch.nn module it is the node with the module's
    result, if the module makes only one kind of call (hooks and padding add others).
    """
    by_path: dict[str, list[ir.Node]] = {}
    for node, origin in origins.items():
        owner = modules.get(origin.path)
        if origin.path and owner is not None and type(owner).__module__.startswith("torch.nn."):
            by_path.setdefault(origin.path, []).append(node)
    bare = set()
    for nodes in by_path.values():
        weighted = {node for node in nodes if _is_weighted(node)}
        kinds = {origins[node].call.rstrip("0123456789").rstrip("_") for node in nodes}
        if weighted:
            bare |= weighted
        elif len(kinds) == 1:
            bare |= {node for node in nodes if _gives(node, origins[node].call)}
    return bare


def _is_weighted(node: ir.Node) -> bool:
    if node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return False
    weight = node.inputs[1]
    return weight is not None and weight.is_initializer()


def _gives(node: ir.Node, call: str) -> bool:
    return any(value.name == call for value in node.outputs)


def _unique(name: str, taken: Counter[str]) -> str:
    taken[name] += 1
    if taken[name] == 1:
        return name
    return _unique(f"{name}_{taken[name] - 1}", taken)


def _name_weight(node: ir.Node, path: str, graph: ir.Graph) -> None:
    """Rename a weight that the exporter transposed (``val_12``) to its parameter's name."""
    weight = node.inputs[1]
    name = f"{path}.weight"
    if weight is None or weight.name == name or name in graph.initializers:
        return
    if weight.name is not None and "." not in weight.name and len(weight.uses()) == 1:
        graph.initializers.pop(weight.name)
        weight.name = name
        graph.initializers[name] = weight


def name_outputs(model: ir.Model, sample: Any, names: Sequence[str] = ()) -> None:
    """Name the outputs of `model` in place, and inputs that are outputs, too, as the module does.

    Args:
        model: the exported network.
        sample: what the module answered; the keys of a dict of tensors become names.
        names: names in their place.

    Raises:
        OptionError: their number is wrong, or two are equal.
    """
    outputs = model.graph.outputs
    if names and len(names) != len(outputs):
        raise OptionError(
            f"{counted(len(names), 'output name')} for {counted(len(outputs), 'output')} of the network."
        )
    made = {value.name for value in outputs}
    # an input that is an output, too, gets another name from the exporter
    inputs = [
        name.removesuffix(_ALSO_OUTPUT) if name.removesuffix(_ALSO_OUTPUT) in made else name
        for name in (value.name or "" for value in model.graph.inputs)
    ]
    chosen = list(names) or _names_of(sample, len(outputs))
    if len(set(chosen)) != len(chosen) or not set(chosen).isdisjoint(inputs):
        raise OptionError(
            f"output names {chosen} are not distinct, or are names of inputs: give others, one for each "
            "output (--output-name)."
        )
    for value, name in zip((*outputs, *model.graph.inputs), (*chosen, *inputs)):
        value.name = name


def _names_of(sample: Any, count: int) -> list[str]:
    """``output``, ``output_0`` ..., or the keys of a dict of tensors."""
    values = list(sample.values()) if isinstance(sample, dict) else []
    alone = all(len(torch.utils._pytree.tree_leaves(one)) == 1 for one in values)
    if len(values) == count and alone:
        return [str(key) for key in sample]
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def name_dims(model: ir.Model, inputs: Sequence[InputSpec]) -> None:
    """Give dynamic dims the user's names; the exporter numbers them (``s77``)."""
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, inputs):
        for axis, name in spec.dynamic.items():
            symbol = value.shape[axis] if value.shape is not None else None
            if isinstance(symbol, ir.SymbolicDim) and symbol.value is not None:
                names[symbol.value] = name
    for value in _values(model.graph):
        if value.shape is None or value.shape.frozen:
            continue
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                words = re.split(r"(\w+)", dim.value)
                value.shape[axis] = "".join(names.get(word, word) for word in words)


def strip_metadata(model: ir.Model) -> None:
    """Remove the exporter's metadata: stack traces with absolute paths, scopes, signatures."""
    graph = model.graph
    holders: tuple[ir.Model | ir.Graph | ir.Node | ir.Value, ...]
    holders = (model, graph, *graph.all_nodes(), *_values(graph))
    for one in holders:
        one.metadata_props.clear()
        one.doc_string = None


def _values(graph: ir.Graph) -> list[ir.Value]:
    """Every tensor of the graph: inputs, weights, and outputs of nodes."""
    outputs = [value for node in graph.all_nodes() for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *outputs]
