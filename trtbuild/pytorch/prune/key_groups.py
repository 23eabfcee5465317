"""Prunes attention in which several query heads share a key and value head, in whole groups.

A query head cannot be removed alone, since the repeated keys need the same number for each. So a key and
value head is removed with all query heads that read it, and with their columns of the output projection
(Ainslie et al. 2023, "GQA", arXiv 2305.13245). The remaining heads compute the same as before, since each has
its own softmax. The library cannot trace these channels, so they are cut here.

If one layer makes queries, keys and values, their rows lie one after the other (Phi-3), or group by group
(Falcon, InternLM2). The names do not tell which, so both are tried, and the check of the cut decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.pytorch.prune.attention_blocks import (
    HEAD_COUNTS,
    HEAD_WIDTHS,
    PACKED,
    SEPARATE,
    number_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "SHARED_KEYS",
    "KeyGroups",
    "columns_of",
    "cut_key_groups",
    "find_key_groups",
    "weakest_key_groups",
]

SHARED_KEYS = "its heads share keys, and are removed in whole groups"
"""Why the layers of such a block keep their width if no group is removed."""

_KEY_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads")
_PACKED = (*PACKED, "qkv_proj", "query_key_value", "wqkv", "W_pack")
_OUTPUTS = ("o_proj", "out_proj", "wo", "to_out", "out_lin", "dense", "proj", "o")
_ONE_AFTER_THE_OTHER, _BY_GROUP = "one after the other", "by group"


@dataclass(frozen=True)
class KeyGroups:
    """One attention block with shared keys.

    Attributes:
        path: its module path.
        width: channels of one head.
        share: number of query heads per key head.
        counts: names of its attributes with the number of query heads or key heads.
        projections: names of the layers that make queries, keys and values, or of the one that makes all.
        output: name of the layer that reads the heads.
        order: order of the rows if one layer makes all; else empty.
    """

    path: str
    width: int
    share: int
    counts: tuple[str, ...]
    projections: tuple[str, ...]
    output: str
    order: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers whose heads are removed together; the output projection is last."""
        return tuple(f"{self.path}.{name}".lstrip(".") for name in (*self.projections, self.output))

    @property
    def orders(self) -> tuple[KeyGroups, ...]:
        """The block once for each possible order of its rows."""
        if not self.order:
            return (self,)
        return tuple(replace(self, order=one) for one in (_ONE_AFTER_THE_OTHER, _BY_GROUP))

    def groups(self, module: nn.Module) -> int:
        """Return the number of key heads."""
        columns = int(module.get_submodule(self.layers[-1]).in_features)
        return columns // (self.width * self.share)

    def channels(self, module: nn.Module, layer: int) -> torch.Tensor:
        """Return ``[groups, ...]``: the outputs of a layer in each group; for the last layer, the inputs."""
        groups = self.groups(module)
        parts = [self.share + 2 if self.order else 1]
        if self.order == _ONE_AFTER_THE_OTHER and layer < len(self.projections):
            parts = [self.share, 1, 1]
        weight = module.get_submodule(self.layers[layer]).weight
        size = weight.shape[int(layer == len(self.projections))]
        rows = torch.arange(size).split([size * one // sum(parts) for one in parts])
        return torch.cat([part.view(groups, -1) for part in rows], 1)


def find_key_groups(module: nn.Module) -> list[KeyGroups]:
    """Return the attention blocks whose query heads share key heads, by the usual names.

    The width of a head follows from the block's number of heads, or from an attribute such as ``head_dim``:
    blocks of transformers have the number of heads only in their configuration.
    """
    found = []
    for path, block in module.named_modules():
        count, key_count = (number_in(block, names) for names in (HEAD_COUNTS, _KEY_COUNTS))
        output = next((n for n in _OUTPUTS if isinstance(getattr(block, n, None), nn.Linear)), "")
        if not output:
            continue
        counts = tuple(name for name in (count, key_count) if name)
        whole = _in_one_layer(block, counts, getattr(block, output))
        if whole:
            name, width, share = whole
            found.append(
                KeyGroups(path, width, share, counts, (name,), output, _ONE_AFTER_THE_OTHER)
            )
            continue
        for names in SEPARATE:
            layers = [getattr(block, name, None) for name in (*names, output)]
            if not all(isinstance(layer, nn.Linear) for layer in layers):
                continue
            width = _width(block, layers[0], count)
            keys = _keys(layers, width)
            if keys and (not key_count or getattr(block, key_count) == keys):
                share = getattr(block, output).in_features // width // keys
                found.append(KeyGroups(path, width, share, counts, names, output))
                break
    return found


def _in_one_layer(
    block: nn.Module, counts: tuple[str, ...], output: nn.Linear
) -> tuple[str, int, int] | None:
    """The layer that makes queries, keys and values, the width of a head, and query heads per key head."""
    if len(counts) < 2:
        return None
    heads, keys = (getattr(block, name) for name in counts)
    if not 0 < keys < heads or heads % keys:
        return None
    width = output.in_features // heads
    for name in _PACKED:
        layer = getattr(block, name, None)
        if (
            isinstance(layer, nn.Linear)
            and output.in_features == heads * width
            and layer.out_features == (heads + 2 * keys) * width
        ):
            return name, width, heads // keys
    return None


def _width(block: nn.Module, query: Any, count: str) -> int:
    """The channels of one head; 0 if the block does not tell."""
    if not count:
        return int(getattr(block, number_in(block, HEAD_WIDTHS), 0))
    heads = getattr(block, count)
    return int(query.out_features // heads) if heads > 0 else 0


def _keys(layers: list[Any], width: int) -> int:
    """The number of key heads; 0 if query heads do not share them evenly."""
    query, key, value, output = layers
    widths = {query.out_features, key.out_features}
    same = key.out_features == value.out_features and output.in_features == query.out_features
    if width < 1 or not same or any(one % width for one in widths):
        return 0
    heads, keys = query.out_features // width, key.out_features // width
    return keys if keys < heads and heads % keys == 0 else 0


def weakest_key_groups(module: nn.Module, block: KeyGroups, gone: int) -> list[int]:
    """Return the `gone` groups with the smallest weights in all layers."""
    sizes = []
    for number, path in enumerate(block.layers):
        weight = module.get_submodule(path).weight.detach()
        along = weight.T if number == len(block.projections) else weight
        squares = along.square().sum(1)
        sizes.append(squares[block.channels(module, number).to(squares.device)].sum(1))
    return sorted(torch.stack(sizes).sum(0).argsort()[:gone].tolist())


def columns_of(module: nn.Module, block: KeyGroups, groups: list[int]) -> list[int]:
    """Return the inputs of the output projection that belong to `groups`."""
    columns: list[int] = block.channels(module, len(block.projections))[groups].flatten().tolist()
    return columns


def cut_key_groups(
    module: nn.Module, block: KeyGroups, groups: list[int]
) -> dict[str, Mapping[str, Any]]:
    """Remove `groups` from a block, in place.

    Returns:
        Module path -> attribute -> new value.
    """
    before = block.groups(module)
    keep = [one for one in range(before) if one not in groups]
    left = [block.channels(module, number)[keep] for number in range(len(block.layers))]
    for number, (path, rows) in enumerate(zip(block.layers, left)):
        layer = module.get_submodule(path)
        axis = int(number == len(block.projections))
        # in their original order
        staying = rows.flatten().sort().values.to(layer.weight.device)
        layer.weight = _part(layer.weight, axis, staying)
        if axis == 0 and layer.bias is not None:
            layer.bias = _part(layer.bias, 0, staying)
        layer.out_features, layer.in_features = layer.weight.shape
    owner = module.get_submodule(block.path)
    changed = {name: getattr(owner, name) // before * len(keep) for name in block.counts}
    for name, value in changed.items():
        setattr(owner, name, value)
    return {block.path: changed}


def _part(parameter: nn.Parameter, axis: int, rows: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(axis, rows), parameter.requires_grad)
