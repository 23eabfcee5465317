"""Removes named channels with all that is coupled with them, and finds channels that are zero.

A structured mask (``torch.nn.utils.prune.ln_structured``, `mask_slices`) or sparse training sets whole
channels to zero, which cost as much as before. `zero_channels` finds those that can be removed, and
`prune_indices` removes them, or any others that the user names.
"""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.errors import ModelError, OptionError
from trtbuild.foreign_warnings import warnings_that_only_warn
from trtbuild.pytorch.copies import copy_module, share_again, shared_parameters, unwrapped
from trtbuild.pytorch.cost import count_cost
from trtbuild.pytorch.inputs import BoundInputs, bind_inputs
from trtbuild.pytorch.layers import LAYERS
from trtbuild.pytorch.prune.attention_blocks import find_attention, update_attention
from trtbuild.pytorch.prune.cutting import Cut, history_in
from trtbuild.pytorch.prune.dense_reference import DenseReference
from trtbuild.pytorch.prune.dependency import (
    build_graph,
    cuts_outputs,
    group_of,
    is_mixer,
    tracing,
    update_norms,
)
from trtbuild.pytorch.prune.groups import find_stored_sizes
from trtbuild.pytorch.prune.key_groups import columns_of, cut_key_groups, find_key_groups
from trtbuild.pytorch.prune.members import removable_groups
from trtbuild.pytorch.prune.named_heads import heads_behind, take_key_groups
from trtbuild.pytorch.prune.outcome import (
    PruneReport,
    PruneResult,
    prepared,
    remembered,
    width_changes,
)
from trtbuild.pytorch.prune.sizes import update_sizes
from trtbuild.pytorch.prune.widths import common_multiple, layer_widths
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.pytorch.prune.members import ChannelSlices
    from trtbuild.pytorch.prune.rewrites import BlockRewrite
    from trtbuild.pytorch.spec import InputSpec

__all__ = ["prune_indices", "zero_channels"]


@warnings_that_only_warn()
def prune_indices(
    module: nn.Module,
    inputs: Sequence[InputSpec] | BoundInputs,
    channels: Mapping[str, Sequence[int]],
    *,
    rewrites: Sequence[BlockRewrite] = (),
) -> PruneResult:
    """Remove exactly these output channels, and what is coupled with them, from a copy of `module`.

    Layers in a residual sum with a named layer lose the same channels, their readers lose inputs, and norms
    lose parameters. The result is compared with the dense network in float64, see `prune_channels`.

    Args:
        module: any module; masks and computed weights are made plain first.
        inputs: the sample inputs.
        channels: layer path -> indices of its output channels, in `module` as passed.
        rewrites: as in `prune_channels`.

    Raises:
        OptionError: a layer or channel does not exist, a layer would lose all, or channels can only be
            removed together with others.
        ModelError: the module cannot be traced, or its results would change.
    """
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    with torch.inference_mode(mode=False):
        base, rewritten = prepared(module, bound, rewrites)
        done = _cut_named(base, bound, channels)
    if done.failed:
        raise ModelError(
            f"the channels of {', '.join(map(repr, channels))} cannot go: {done.failed}."
        )
    return remembered(base, done, bound, rewritten, _report(base, done, bound))


def _cut_named(base: nn.Module, bound: BoundInputs, channels: Mapping[str, Sequence[int]]) -> Cut:
    """Cut a copy of `base` layer by layer, and compare it with `base`."""
    sizes, reference = find_stored_sizes(base, bound), DenseReference(base, bound)
    done = Cut(copy_module(base))
    with tracing(done.module, bound):
        graph = build_graph(done.module, bound)
        left: dict[str, list[int]] = {}
        rest, shared = take_key_groups(base, _checked(base, channels))
        for path, indices in rest.items():
            group = _group(graph, base, path, indices, left)
            if group is None:
                continue
            done.mixed |= is_mixer(graph, group, ())
            reference.note_removed(graph, group)
            _note(graph, group, left)
            group.prune()
            done.note(update_norms(done.module), update_sizes(done.module, sizes))
    done.history += history_in(graph)
    share_again(done.module, shared_parameters(base))
    _count_heads(base, done, left)
    for block, gone in shared:
        reference.note_unread(block.layers[-1], columns_of(base, block, gone))
        done.note(cut_key_groups(done.module, block, gone), update_sizes(done.module, sizes))
        done.key_groups.append((block.path, gone, block.order))
    done.failed = reference.broken(done.module, values=not done.mixed)
    return done


def _checked(base: nn.Module, channels: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """The channels as integers that exist in their layers."""
    widths = layer_widths(base)
    checked: dict[str, Sequence[int]] = {}
    for path, indices in channels.items():
        if path not in widths:
            raise OptionError(
                f"'{path}' is not a convolution or linear layer that the module calls."
            )
        checked[path] = numbers = _numbers(path, indices)
        wrong = [index for index in numbers if not 0 <= index < widths[path]]
        if wrong:
            raise OptionError(
                f"'{path}' has {counted(widths[path], 'output channel')}; there is no channel {wrong[0]}."
            )
    return checked


def _count_heads(base: nn.Module, done: Cut, left: Mapping[str, Sequence[int]]) -> None:
    """Set the number of heads in every attention block that lost channels."""
    shared = {block.path for block in find_key_groups(base)}
    for block in find_attention(base):
        if block.path in shared or not left.keys() & set(block.projections):
            continue
        count, wide = heads_behind(base, block, left)
        done.mixed |= not wide
        heads = {done.module.get_submodule(path): count for path in block.projections}
        done.note(update_attention(done.module, [block], heads))


def zero_channels(
    module: nn.Module, inputs: Sequence[InputSpec] | BoundInputs
) -> dict[str, list[int]]:
    """Return layer path -> its output channels that are zero, for `prune_indices`.

    A channel counts as zero if all weights that make it are zero, with masks applied, or all that read it.
    Its bias and the shift of its norm are ignored, and removed with it. Channels of the network's outputs are
    never returned; in coupled layers a channel must be zero in all of them.

    Raises:
        ModelError: the module cannot be traced.
    """
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    with torch.inference_mode(mode=False):
        base, _ = prepared(module, bound, ())
        with tracing(base, bound):
            groups = removable_groups(build_graph(base, bound))
            found = {path: _zero_in(width, slices) for path, width, slices in groups}
    return {path: gone for path, gone in found.items() if gone}


def _zero_in(width: int, slices: Sequence[ChannelSlices]) -> list[int]:
    """The channels of a group that are zero in all layers that make them, or that read them; not all."""
    gone = torch.zeros(width, dtype=torch.bool)
    for makes in (True, False):
        sizes = [
            one.squares(width, one.owner.weight)
            for one in slices
            if one.gives is makes and not one.passes
        ]
        if sizes:
            gone |= torch.stack(sizes).sum(0) == 0
    return [] if gone.all() else gone.nonzero().flatten().tolist()


def _group(
    graph: Any,
    base: nn.Module,
    path: str,
    indices: Sequence[int],
    left: Mapping[str, Sequence[int]],
) -> Any:
    """The library's group of those channels that remain; None if all were removed with others."""
    layer = graph.model.get_submodule(path)
    if layer not in graph.module2node:
        raise OptionError(f"'{path}' is not a convolution or linear layer that the module calls.")
    survivors = left.get(path, range(layer_widths(base)[path]))
    places = {number: place for place, number in enumerate(survivors)}
    wanted = sorted({places[i] for i in indices if i in places})
    if not wanted:
        return None
    if len(wanted) == len(survivors):
        raise OptionError(f"'{path}' would lose all of its channels.")
    group = group_of(graph, layer, wanted)
    own = {
        int(i)
        for item in group
        if item.dep.target.module is layer and cuts_outputs(graph, item)
        for i in item.idxs
    }
    if own != set(wanted):
        others = sorted(survivors[i] for i in own - set(wanted))
        raise OptionError(
            f"the channels of '{path}' can only go together with {others} of it, to which they are coupled."
        )
    return group


def _numbers(path: str, indices: Any) -> list[int]:
    """The user's list, array or tensor of channels as integers."""
    with contextlib.suppress(TypeError):
        given = list(indices)
        if not any(isinstance(one, bool) for one in given):
            return [operator.index(one) for one in given]
    raise OptionError(
        f"the channels to remove from '{path}' are a list of indices, such as [0, 5]."
    )


def _note(graph: Any, group: Any, left: dict[str, list[int]]) -> None:
    """Record which of its original channels each layer still has after the cut of `group`."""
    for item in group:
        layer = item.dep.target.module
        if isinstance(layer, LAYERS) and cuts_outputs(graph, item):
            path = str(graph._module2name[layer])
            now = left.get(path, list(range(graph.get_out_channels(layer))))
            gone = set(item.idxs)
            left[path] = [number for place, number in enumerate(now) if place not in gone]


def _report(base: nn.Module, done: Cut, bound: BoundInputs) -> PruneReport:
    widths = width_changes(
        base, done.module, lambda _: "it was not named, and is coupled with nothing that was"
    )
    narrower = [width for width in widths if width.after < width.before]
    total = sum(width.before for width in narrower)
    share = 1 - sum(width.after for width in narrower) / total if total else 0.0
    return PruneReport(
        asked=share,
        achieved=share,
        round_to=common_multiple([width.after for width in narrower]),
        widths=widths,
        before=count_cost(base, bound),
        after=count_cost(done.module, bound),
        inexact=done.mixed,
        notes=(),
    )
