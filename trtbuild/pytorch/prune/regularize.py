"""Penalties that weaken channels during the user's training, so that less is lost when they are removed.

Each is a function of the module that returns a value to be added to the loss:

    weights = channel_weights(module, inputs)
    for images, labels in batches:
        loss = criterion(module(images), labels) + group_lasso(module, weights, 1e-4)
        ...
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from trtbuild.errors import ModelError, OptionError
from trtbuild.pytorch.copies import unwrapped
from trtbuild.pytorch.inputs import bind_inputs
from trtbuild.pytorch.prune.dependency import build_graph, tracing
from trtbuild.pytorch.prune.members import ChannelSlices, removable_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.pytorch.spec import InputSpec

__all__ = [
    "ChannelWeights",
    "channel_weights",
    "group_lasso",
    "growing_penalty",
    "growing_strength",
    "norm_scale_penalty",
    "weakest_channels",
]


@dataclass(frozen=True)
class ChannelWeights:
    """The weights of each channel of one coupled group, in all layers that make, pass on or read it.

    Attributes:
        layer: path of the layer that names the group.
        width: number of channels.
        slices: layer path -> the slices of its weight that belong to the channels.
    """

    layer: str
    width: int
    slices: tuple[tuple[str, ChannelSlices], ...]

    def squares(self, module: nn.Module) -> torch.Tensor:
        """Return the sum of squares of the weights of each channel, ``[width]``, with gradients.

        Raises:
            OptionError: channels have been removed since, or it is another module.
        """
        sums = []
        for path, one in self.slices:
            weight = getattr(_submodule(module, path), "weight", None)
            if weight is None or max(one.slices, default=-1) >= weight.shape[one.axis]:
                raise OptionError(
                    f"'{path}' has changed since channel_weights was called: call it again after every cut."
                )
            sums.append(one.squares(self.width, weight))
        return torch.stack(sums).sum(0)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return unwrapped(module).get_submodule(path)
    except AttributeError:
        return None


def channel_weights(module: nn.Module, inputs: Sequence[InputSpec]) -> tuple[ChannelWeights, ...]:
    """Return the coupled groups of channels of `module` that can be removed, for the functions of this file.

    They stay valid during training and for copies of the module, but not after channels are removed.

    Raises:
        ModelError: the module cannot be traced, or none of its channels can be removed.
    """
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    found = []
    with torch.inference_mode(mode=False), tracing(module, bound):
        graph = build_graph(module, bound)
        for layer, width, members in removable_groups(graph):
            slices = tuple((str(graph._module2name[one.owner]), one) for one in members)
            found.append(ChannelWeights(layer, width, slices))
    if not found:
        raise ModelError("all layers of the module give its outputs: no channel of it can go.")
    return tuple(found)


def norm_scale_penalty(module: nn.Module, strength: float = 1e-4) -> torch.Tensor:
    """Return `strength` times the sum of the magnitudes of all batch-norm scales.

    Channels whose scale becomes small are pruned with the criterion ``bn-scale``. Liu et al. 2017,
    "Learning Efficient Convolutional Networks through Network Slimming" (arXiv 1708.06519), 1e-5 to 1e-4.

    Raises:
        OptionError: the module has no batch norm with a scale.
    """
    scales = [
        child.weight.abs().sum()
        for child in module.modules()
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.weight is not None
    ]
    if not scales:
        raise OptionError("the module has no batch norm with a scale: use group_lasso.")
    return strength * torch.stack(scales).sum()


def group_lasso(
    module: nn.Module, weights: Sequence[ChannelWeights], strength: float = 1e-4
) -> torch.Tensor:
    """Return `strength` times the sum of the Euclidean norms of all channels' weights.

    The norm of all weights of one channel, in all coupled layers, is not squared, so whole channels become
    zero. Yuan and Lin 2006, "Model selection and estimation in regression with grouped
    variables"; for channels Wen et al. 2016 (arXiv 1608.03665); coupled, Fang et al. 2023 (arXiv 2301.12900).

    Args:
        module: the one that `weights` were made from, or a copy.
        weights: see `channel_weights`.
        strength: factor.
    """
    tiny = torch.finfo(torch.float32).tiny  # the root has no finite slope at zero
    lengths = [one.squares(module).clamp_min(tiny).sqrt().sum() for one in weights]
    return strength * torch.stack(lengths).sum()


def weakest_channels(
    module: nn.Module, weights: Sequence[ChannelWeights], ratio: float
) -> dict[str, list[int]]:
    """Return layer -> the share `ratio` of its channels with the smallest weights, for `growing_penalty`.

    Once these weights are near zero, `prune_indices` takes the same mapping.

    Raises:
        OptionError: `ratio` is not below 1.
    """
    if not 0 <= ratio < 1:
        raise OptionError(f"a ratio of {ratio} is out of range: at least 0 and below 1.")
    found = {}
    for one in weights:
        with torch.no_grad():
            order = one.squares(module).argsort()
        found[one.layer] = sorted(order[: int(ratio * one.width)].tolist())
    return {layer: channels for layer, channels in found.items() if channels}


def growing_penalty(
    module: nn.Module,
    weights: Sequence[ChannelWeights],
    channels: Mapping[str, Sequence[int]],
    strength: float,
) -> torch.Tensor:
    """Return half of `strength` times the squared weights of the channels to be removed.

    With growing strength (`growing_strength`) the other channels gradually take over. Wang et
    al. 2021, "Neural Pruning via Growing Regularization" (arXiv 2012.09243), first variant.

    Args:
        module: the one that `weights` were made from, or a copy.
        weights: see `channel_weights`.
        channels: layer -> its channels to be removed, see `weakest_channels`.
        strength: in this iteration.

    Raises:
        OptionError: a layer is not in `weights`, or has no such channel, or `channels` is empty.
    """
    known = {one.layer: one for one in weights}
    for layer, numbers in channels.items():
        if layer not in known:
            raise OptionError(
                f"'{layer}' is none of the layers that `weights` are named after: {', '.join(known)}."
            )
        _check_numbers(known[layer], numbers)
    if not channels:
        raise OptionError("name at least one channel to remove.")
    sums = [known[layer].squares(module)[list(each)].sum() for layer, each in channels.items()]
    return 0.5 * strength * torch.stack(sums).sum()


def _check_numbers(weights: ChannelWeights, numbers: Sequence[int]) -> None:
    for one in numbers:
        try:
            number = operator.index(one)
        except TypeError:
            number = -1
        if not 0 <= number < weights.width:
            raise OptionError(
                f"'{weights.layer}' has no channel {one}: it has {weights.width}, counted from 0."
            )


def growing_strength(
    iteration: int, *, delta: float = 1e-4, every: int = 10, ceiling: float = 1.0
) -> float:
    """Return the strength of `growing_penalty`: `delta` more after each `every` iterations, up to `ceiling`.

    The defaults of `delta` and `every` are those of Wang et al. 2021.
    """
    return min(delta * (iteration // every), ceiling)
