"""Named channels of attention: whole heads, the same channels of every head, or whole key groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.pytorch.prune.key_groups import find_key_groups
from trtbuild.pytorch.prune.widths import layer_widths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from trtbuild.pytorch.prune.attention_blocks import Attention
    from trtbuild.pytorch.prune.key_groups import KeyGroups

__all__ = ["heads_behind", "take_key_groups"]


def heads_behind(
    base: nn.Module, block: Attention, left: Mapping[str, Sequence[int]]
) -> tuple[int, bool]:
    """Return how many heads of a block remain, and whether all of them have their original width.

    Args:
        base: before the cut.
        block: a block of `base`.
        left: layer path -> its remaining output channels, by original index; layers that lost none are
            absent.

    Raises:
        OptionError: heads would differ in width, or queries from keys.
    """
    heads = getattr(base.get_submodule(block.path), block.count)
    widths = layer_widths(base)
    parts: list[dict[int, set[int]]] = []
    for path in block.projections:
        size = widths[path] // (heads * (3 if block.packed else 1))
        channels = {head: set[int]() for head in range(widths[path] // size)}
        for number in left.get(path, range(widths[path])):
            channels[number // size].add(number % size)
        for first in range(0, len(channels), heads):
            part = {head: channels[first + head] for head in range(heads)}
            parts.append({head: places for head, places in part.items() if places})
    query, key, value = parts
    alike = all(one == part[min(part)] for part in parts for one in part.values())
    if query != key or query.keys() != value.keys() or not alike:
        raise OptionError(
            f"the channels of '{block.projections[0]}' belong to {heads} heads: whole heads can go, with all "
            "of their channels in queries, keys and values, or the same channels of every head."
        )
    return len(query), all(len(one) == size for part in parts for one in part.values())


def take_key_groups(
    base: nn.Module, channels: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Sequence[int]], list[tuple[KeyGroups, list[int]]]]:
    """Return the named channels outside of blocks that share keys, and the groups to remove in these blocks.

    Args:
        base: with plain weights.
        channels: layer path -> indices of its output channels.

    Raises:
        OptionError: the named channels are not whole groups of heads.
    """
    rest: dict[str, Any] = dict(channels)
    taken = []
    for block in find_key_groups(base):
        named = {
            number: rest.pop(path) for number, path in enumerate(block.layers[:-1]) if path in rest
        }
        if named:
            taken.append(_whole_groups(base, block, named))
    return rest, taken


def _whole_groups(
    base: nn.Module, block: KeyGroups, named: Mapping[int, Sequence[int]]
) -> tuple[KeyGroups, list[int]]:
    """The block with the row order in which the named channels are whole groups, and the groups' indices."""
    for one in block.orders:
        gone: set[int] = set()
        whole = True
        for layer, numbers in named.items():
            wanted = {int(number) for number in numbers}
            groups = [set(rows) for rows in one.channels(base, layer).tolist()]
            found = {number for number, rows in enumerate(groups) if rows <= wanted}
            whole &= wanted == {row for number in found for row in groups[number]}
            gone |= found
        if whole and len(gone) < one.groups(base):
            return one, sorted(gone)
    path = block.layers[min(named)]
    rows = sorted(block.channels(base, min(named))[0].tolist())
    raise OptionError(
        f"the heads of '{path}' share keys and go by whole groups, not all of them: the first of its "
        f"{block.groups(base)} groups is {_spans(rows)}."
    )


def _spans(numbers: Sequence[int]) -> str:
    """Sorted indices in words: ``0 to 7 and 32 to 35``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return " and ".join(f"{first} to {last}" for first, last in spans)
