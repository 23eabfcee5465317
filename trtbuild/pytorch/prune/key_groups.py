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

from trtbuild.pytorch.prune.dependency import HEAD_COUNTS, SEPARATE

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
        count, key_count: names of its attributes that hold the heads of queries, and of keys.
        projections: names of the layers that give queries, keys and values.
        output: name of the layer that reads the heads.
    """

    path: str
    count: str
    key_count: str
    projections: tuple[str, str, str]
    output: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers whose heads go together, of the output projection last."""
        return tuple(f"{self.path}.{name}".lstrip(".") for name in (*self.projections, self.output))

    def groups(self, module: nn.Module) -> int:
        """Return how many heads of keys there are."""
        return int(getattr(module.get_submodule(self.path), self.key_count))

    def blocks(self, module: nn.Module, layer: int) -> torch.Tensor:
        """Return the weight of one of `layers` as ``[groups, ...]``: what of it belongs to each group."""
        weight = module.get_submodule(self.layers[layer]).weight.detach()
        along = weight if layer < len(self.projections) else weight.T
        return along.reshape(self.groups(module), -1)


def find_key_groups(module: nn.Module) -> list[KeyGroups]:
    """Return the attention blocks whose heads of queries share heads of keys, by the usual names."""
    found = []
    for path, block in module.named_modules():
        count, key_count = (_number(block, names) for names in (HEAD_COUNTS, _KEY_COUNTS))
        if not count or not key_count:
            continue
        heads, keys = getattr(block, count), getattr(block, key_count)
        if not 0 < keys < heads or heads % keys:
            continue
        for names in SEPARATE:
            layers = [getattr(block, name, None) for name in names]
            output = next(
                (n for n in _OUTPUTS if isinstance(getattr(block, n, None), nn.Linear)), ""
            )
            if output and _fit(layers, getattr(block, output), heads, keys):
                found.append(KeyGroups(path, count, key_count, names, output))
                break
    return found


def _number(block: nn.Module, names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(getattr(block, name, None), int)), "")


def _fit(layers: list[Any], output: nn.Linear, heads: int, keys: int) -> bool:
    if not all(isinstance(layer, nn.Linear) for layer in layers):
        return False
    query, key, value = layers
    width, rest = divmod(int(query.out_features), heads)
    same = key.out_features == value.out_features == keys * width
    return rest == 0 and same and output.in_features == heads * width


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
    share = getattr(owner, block.count) // before
    changed = {block.count: share * len(keep), block.key_count: len(keep)}
    for name, value in changed.items():
        setattr(owner, name, value)
    return {block.path: changed}


def _part(parameter: nn.Parameter, axis: int, rows: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(axis, rows), parameter.requires_grad)
