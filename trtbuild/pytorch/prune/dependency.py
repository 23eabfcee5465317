"""Torch-Pruning's dependency graph, and its groups as module paths.

The library traces gradients, so every parameter must require them, gradients must be on, and it leaves the
module in eval mode; `tracing` arranges that and restores everything.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.errors import ModelError
from trtbuild.pytorch.inputs import sample
from trtbuild.pytorch.layers import LAYERS, is_depthwise
from trtbuild.pytorch.prune.buffers import channel_buffers_as_parameters
from trtbuild.pytorch.prune.slices import SlicedGraph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = [
    "Member",
    "PruneGroup",
    "build_graph",
    "cuts_outputs",
    "describe",
    "group_of",
    "is_mixer",
    "output_layers",
    "tracing",
    "update_norms",
]


_MIXERS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.MultiheadAttention)
"""They compute each channel from several, so removing some changes the others."""


@dataclass(frozen=True)
class Member:
    """One part of a group.

    Attributes:
        path: module path, or name of a parameter.
        side: ``out`` if it loses output channels, ``in`` if it loses input channels.
        because: path of the member that causes it; empty for the root.
        num_channels: how many of its channels belong to the group.
    """

    path: str
    side: str
    because: str
    num_channels: int


@dataclass(frozen=True)
class PruneGroup:
    """Channels that can only be removed together.

    Attributes:
        root: the layer that the group is named after.
        width: its output channels.
        members: everything that loses channels with it, causes before effects.
        kept: why the group keeps its width; empty if it can be pruned.
    """

    root: str
    width: int
    members: tuple[Member, ...]
    kept: str = ""


@contextlib.contextmanager
def tracing(module: nn.Module, inputs: BoundInputs) -> Iterator[None]:
    """Set up what Torch-Pruning needs; afterwards restore the flags, by parameter name."""
    wanted = {name: tensor.requires_grad for name, tensor in module.named_parameters()}
    modes = {child: child.training for child in module.modules()}
    try:
        module.eval()
        with (
            channel_buffers_as_parameters(module, inputs),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            for tensor in module.parameters():
                tensor.requires_grad_(tensor.is_floating_point())
            warnings.simplefilter("ignore")  # its warnings are about its internals
            yield
    finally:
        for name, tensor in module.named_parameters():
            tensor.grad = None
            tensor.requires_grad_(wanted.get(name, tensor.is_floating_point()))
        for child, training in modes.items():
            child.training = training


def forward_arguments(inputs: BoundInputs) -> dict[str, Any]:
    """Return the arguments with which Torch-Pruning calls the module and finds tensors in its outputs."""
    arguments, keywords = sample(inputs, seed=0)
    return {
        "example_inputs": arguments,
        "forward_fn": lambda model, given: model(*given, **keywords),
        "output_transform": _differentiable,
    }


def _differentiable(output: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None]


def build_graph(module: nn.Module, inputs: BoundInputs) -> Any:
    """Return the dependency graph of `module`; call it inside `tracing`.

    Raises:
        ModelError: the library cannot trace the module.
    """
    try:
        return SlicedGraph().build_dependency(module, **forward_arguments(inputs), verbose=False)
    except Exception as error:
        raise ModelError(f"the channels of the module cannot be traced: {error!r}.") from error


def output_layers(graph: Any) -> list[nn.Module]:
    """Return the layers whose channels are the network's output, without another layer after them."""
    return [
        node.module
        for node in graph.module2node.values()
        if isinstance(node.module, LAYERS) and _reaches_output(node)
    ]


def _reaches_output(node: Any) -> bool:
    seen, stack = set(), list(node.outputs)
    if not stack:
        return True
    while stack:
        following = stack.pop()
        if id(following) in seen:
            continue
        seen.add(id(following))
        if isinstance(following.module, LAYERS) and not is_depthwise(following.module):
            continue
        if not following.outputs:
            return True
        stack.extend(following.outputs)
    return False


def is_mixer(graph: Any, group: Any, heads: Any) -> bool:
    """Return whether removing the channels changes the values of others (norms over channels, attention).

    A norm class of the user's is recognized by its name; it has a parameter per channel.
    """
    modules = (item.dep.target.module for item in group)
    return any(
        isinstance(one, _MIXERS)
        or one in heads
        or (isinstance(one, nn.Parameter) and _is_of_norm(graph, one))
        for one in modules
    )


def _is_of_norm(graph: Any, parameter: nn.Parameter) -> bool:
    owner = str(graph._param_to_name.get(parameter, "")).rpartition(".")[0]
    module = graph.model.get_submodule(owner)
    name = type(module).__name__.lower()
    return isinstance(module, _MIXERS) or ("norm" in name and "batchnorm" not in name)


def update_norms(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Set every RMSNorm's `normalized_shape` to its cut weight's shape.

    Returns:
        Module path -> attribute -> new value, of the changed norms.
    """
    changed: dict[str, dict[str, Any]] = {}
    for path, child in module.named_modules():
        if isinstance(child, nn.RMSNorm) and child.weight is not None:
            shape = tuple(int(dim) for dim in child.weight.shape)
            if tuple(child.normalized_shape) != shape:
                child.normalized_shape = shape
                changed[path] = {"normalized_shape": list(shape)}
    return changed


def group_of(graph: Any, layer: nn.Module, channels: list[int] | None = None) -> Any:
    """Return Torch-Pruning's group of these output channels of `layer`; of all for None."""
    cut = graph.get_pruner_of_module(layer).prune_out_channels
    every = range(graph.get_out_channels(layer)) if channels is None else channels
    return graph.get_pruning_group(layer, cut, list(every))


def describe(graph: Any, group: Any) -> PruneGroup:
    """Return a group of Torch-Pruning in module paths."""
    members = []
    nearest: dict[int, str] = {}  # of an operator: the module whose channels it has
    for item in group:
        path = _path(graph, item.dep.target)
        cause = _path(graph, item.dep.source) or nearest.get(id(item.dep.source), "")
        nearest.setdefault(id(item.dep.target), path or cause)
        if path:
            side = "out" if cuts_outputs(graph, item) else "in"
            members.append(Member(path, side, "" if path == cause else cause, len(item.idxs)))
    root = members[0].path if members else ""
    width = graph.get_out_channels(group[0].dep.target.module) or 0
    return PruneGroup(root, int(width), tuple(members))


def _path(graph: Any, node: Any) -> str:
    """Module path or parameter name of a node; empty for an operator."""
    if isinstance(node.module, nn.Parameter):
        return str(graph._param_to_name.get(node.module, ""))
    return str(graph._module2name.get(node.module, ""))


def cuts_outputs(graph: Any, item: Any) -> bool:
    """Return whether a member of one of Torch-Pruning's groups loses output channels, not input channels.

    Args:
        graph: Torch-Pruning's dependency graph.
        item: a member of one of its groups.
    """
    return bool(graph.is_out_channel_pruning_fn(item.dep.handler))
