"""The slices of parameters that belong to each channel of a coupled group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.pytorch.layers import LAYERS, TRANSPOSED, is_depthwise
from trtbuild.pytorch.prune.dependency import cuts_outputs, group_of, output_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ChannelSlices", "removable_groups"]


@dataclass(frozen=True)
class ChannelSlices:
    """The slices of one layer's weight that belong to the channels of a group.

    Attributes:
        owner: the layer or norm.
        gives: True if it makes these channels, False if it reads them.
        axis: axis of its weight.
        slices: indices of the slices along `axis`.
        channels: for each slice the channel of the group's first layer that it belongs to.
    """

    owner: nn.Module
    gives: bool
    axis: int
    slices: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def passes(self) -> bool:
        """Whether it passes each channel on separately: a norm, or a depthwise convolution."""
        return not isinstance(self.owner, LAYERS) or is_depthwise(self.owner)

    def squares(self, width: int, weight: torch.Tensor) -> torch.Tensor:
        """Return the sum of squared weights of each of `width` channels, with gradients."""
        others = [axis for axis in range(weight.ndim) if axis != self.axis]
        each = weight.square().sum(others) if others else weight.square()
        where = torch.tensor(self.channels, device=each.device)
        return each.new_zeros(width).index_add(0, where, each[list(self.slices)])


def removable_groups(graph: Any) -> Iterator[tuple[str, int, list[ChannelSlices]]]:
    """Yield the coupled groups of a dependency graph, each once, that do not make the network's outputs.

    Yields:
        The path of the layer that names the group, its number of channels, and the slices of every weight.
    """
    outputs = set(output_layers(graph))
    for layer, group in _groups_in(graph):
        slices = _slices_of(graph, group)
        if not any(one.gives and one.owner in outputs for one in slices):
            yield str(graph._module2name[layer]), int(graph.get_out_channels(layer)), slices


def _groups_in(graph: Any) -> Iterator[tuple[nn.Module, Any]]:
    """All coupled groups, with the layers that name them."""
    seen: set[nn.Module] = set()
    for layer in [one for one in graph.module2node if isinstance(one, LAYERS)]:
        if layer in seen:
            continue
        group = group_of(graph, layer)
        seen |= {item.dep.target.module for item in group if cuts_outputs(graph, item)}
        yield layer, group


def _slices_of(graph: Any, group: Any) -> list[ChannelSlices]:
    """The slices of every weight of a group; of grouped convolutions only those on their output side."""
    found = []
    for item in group:
        owner = item.dep.target.module
        weight = getattr(owner, "weight", None)
        if not isinstance(weight, nn.Parameter) or isinstance(
            owner, nn.MultiheadAttention | nn.Embedding
        ):
            continue
        gives = cuts_outputs(graph, item)
        if not gives and getattr(owner, "groups", 1) > 1:
            continue
        axis = int(gives is isinstance(owner, TRANSPOSED)) if weight.ndim > 1 else 0
        slices, channels = tuple(map(int, item.idxs)), tuple(map(int, item.root_idxs))
        if max(slices, default=-1) < weight.shape[axis]:
            found.append(ChannelSlices(owner, gives, axis, slices, channels))
    return found
