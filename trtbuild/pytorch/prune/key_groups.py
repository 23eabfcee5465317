"""Attention in which several heads of queries share one of keys and values: whole groups of heads go.

A head of queries cannot go alone, because what repeats the keys wants as many for each. So a head of keys
and values goes with all the heads of queries that read it, and with their columns of the output projection
(Ainslie et al. 2023, "GQA", arXiv 2305.13245). What is left computes what it did: heads are softmaxes of
their own. The library cannot follow these channels, so they are cut here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trtbuild.pytorch.prune.dependency import HEAD_COUNTS, HEAD_WIDTHS, SEPARATE

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

SHARED_KEYS = "its heads share keys, and go by whole groups"
"""Why the layers of such a block keep their width where no group goes."""

_KEY_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads")
_OUTPUTS = ("o_proj", "out_proj", "wo", "to_out", "out_lin", "dense", "proj", "o")


@dataclass(frozen=True)
class KeyGroups:
    """One attention block whose keys are shared.

    Attributes:
        path: its module path.
        width: channels of one head.
        counts: names of its attributes that hold how many heads of queries, or of keys, there are.
        projections: names of the layers that give queries, keys and values.
        output: name of the layer that reads the heads.
    """

    path: str
    width: int
    counts: tuple[str, ...]
    projections: tuple[str, str, str]
    output: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers whose heads go together, of the output projection last."""
        return tuple(f"{self.path}.{name}".lstrip(".") for name in (*self.projections, self.output))

    def groups(self, module: nn.Module) -> int:
        """Return how many heads of keys there are."""
        return int(module.get_submodule(self.layers[1]).out_features) // self.width

    def blocks(self, module: nn.Module, layer: int) -> torch.Tensor:
        """Return the weight of one of `layers` as ``[groups, ...]``: what of it belongs to each group."""
        weight = module.get_submodule(self.layers[layer]).weight.detach()
        along = weight if layer < len(self.projections) else weight.T
        return along.reshape(self.groups(module), -1)


def find_key_groups(module: nn.Module) -> list[KeyGroups]:
    """Return the attention blocks whose heads of queries share heads of keys, by the usual names.

    How wide a head is, a block says by the number of its heads, or by an attribute such as ``head_dim``: in
    transformers the numbers of heads are in the configuration alone.
    """
    found = []
    for path, block in module.named_modules():
        count, key_count = (_number(block, names) for names in (HEAD_COUNTS, _KEY_COUNTS))
        output = next((n for n in _OUTPUTS if isinstance(getattr(block, n, None), nn.Linear)), "")
        for names in SEPARATE:
            layers = [getattr(block, name, None) for name in (*names, output)]
            if not all(isinstance(layer, nn.Linear) for layer in layers):
                continue
            width = _width(block, layers[0], count)
            keys = _keys(layers, width)
            if keys and (not key_count or getattr(block, key_count) == keys):
                counts = tuple(name for name in (count, key_count) if name)
                found.append(KeyGroups(path, width, counts, names, output))
                break
    return found


def _number(block: nn.Module, names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(getattr(block, name, None), int)), "")


def _width(block: nn.Module, query: Any, count: str) -> int:
    """The channels of one head; 0 where the block does not say it."""
    if not count:
        return int(getattr(block, _number(block, HEAD_WIDTHS), 0))
    heads = getattr(block, count)
    return int(query.out_features // heads) if heads > 0 else 0


def _keys(layers: list[Any], width: int) -> int:
    """How many heads of keys there are; 0 where heads of queries do not share them evenly."""
    query, key, value, output = layers
    widths = {query.out_features, key.out_features}
    same = key.out_features == value.out_features and output.in_features == query.out_features
    if width < 1 or not same or any(one % width for one in widths):
        return 0
    heads, keys = query.out_features // width, key.out_features // width
    return keys if keys < heads and heads % keys == 0 else 0


def weakest_key_groups(module: nn.Module, block: KeyGroups, gone: int) -> list[int]:
    """Return the `gone` groups with the least weights in all layers."""
    sizes = torch.stack([block.blocks(module, k).square().sum(1) for k in range(len(block.layers))])
    return sorted(sizes.sum(0).argsort()[:gone].tolist())


def columns_of(module: nn.Module, block: KeyGroups, groups: list[int]) -> list[int]:
    """Return the inputs of the output projection that belong to `groups`."""
    width = module.get_submodule(block.layers[-1]).in_features // block.groups(module)
    return [group * width + column for group in groups for column in range(width)]


def cut_key_groups(
    module: nn.Module, block: KeyGroups, groups: list[int]
) -> dict[str, Mapping[str, Any]]:
    """Take `groups` out of a block, in place.

    Returns:
        Module path -> attribute -> new value.
    """
    before = block.groups(module)
    keep = torch.tensor([one for one in range(before) if one not in groups])
    for number, path in enumerate(block.layers):
        layer = module.get_submodule(path)
        axis = int(number == len(block.projections))
        width = layer.weight.shape[axis] // before
        rows = (keep[:, None] * width + torch.arange(width)).flatten()
        rows = rows.to(layer.weight.device)
        layer.weight = _part(layer.weight, axis, rows)
        if axis == 0 and layer.bias is not None:
            layer.bias = _part(layer.bias, 0, rows)
        layer.out_features, layer.in_features = layer.weight.shape
    owner = module.get_submodule(block.path)
    changed = {name: getattr(owner, name) // before * len(keep) for name in block.counts}
    for name, value in changed.items():
        setattr(owner, name, value)
    return {block.path: changed}


def _part(parameter: nn.Parameter, axis: int, rows: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(axis, rows), parameter.requires_grad)
