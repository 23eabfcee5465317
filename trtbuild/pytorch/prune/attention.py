"""Attention heads: finding them, so that pruning respects them, and telling the module afterwards.

A packed projection gives query, key and value of all heads in one tensor. Channels can only leave it
head by head, or the same ones of every head. The module's own numbers (`num_heads`, `head_dim`) are
plain attributes, which Torch-Pruning does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Attention", "find_attention", "update_attention"]

_COUNTS = ("num_heads", "n_heads", "n_head", "heads", "num_attention_heads")
_WIDTHS = ("head_dim", "dim_head", "d_head", "attention_head_size")
_PACKED = ("qkv", "to_qkv", "in_proj", "Wqkv", "c_attn")
_SEPARATE = (
    ("q", "k", "v"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"),
    ("to_q", "to_k", "to_v"), ("wq", "wk", "wv"),
)  # fmt: skip


@dataclass(frozen=True)
class Attention:
    """One attention block.

    Attributes:
        path: its module path.
        count: name of its attribute that holds the number of heads.
        projections: paths of the linear layers that give queries, keys and values.
        packed: whether one layer gives all three.
    """

    path: str
    count: str
    projections: tuple[str, ...]
    packed: bool


def find_attention(module: nn.Module) -> list[Attention]:
    """Blocks with a number of heads and linear projections by the usual names."""
    found = []
    for path, block in module.named_modules():
        count = next((n for n in _COUNTS if isinstance(getattr(block, n, None), int)), None)
        if count is None or isinstance(block, nn.MultiheadAttention):
            continue
        heads = getattr(block, count)
        packed = [n for n in _PACKED if _splits(getattr(block, n, None), 3 * heads)]
        separate = [
            names
            for names in _SEPARATE
            if all(_splits(getattr(block, n, None), heads) for n in names)
        ]
        names = packed[:1] or [name for group in separate[:1] for name in group]
        if names:
            paths = tuple(f"{path}.{name}".lstrip(".") for name in names)
            found.append(Attention(path, count, paths, bool(packed)))
    return found


def _splits(layer: object, parts: int) -> bool:
    return isinstance(layer, nn.Linear) and parts > 0 and layer.out_features % parts == 0


def update_attention(
    module: nn.Module, blocks: list[Attention], heads: Mapping[nn.Module, int]
) -> dict[str, dict[str, int]]:
    """Set the number and width of heads in every block after its projections were cut.

    Returns:
        Module path -> attribute -> new value, of what changed.
    """
    changed: dict[str, dict[str, int]] = {}
    for attention in blocks:
        block = module.get_submodule(attention.path)
        layer = module.get_submodule(attention.projections[0])
        count = heads[layer]
        width = layer.out_features // (count * (3 if attention.packed else 1))
        wanted = {attention.count: count}
        wanted |= {name: width for name in _WIDTHS if isinstance(getattr(block, name, None), int)}
        for name, value in wanted.items():
            if getattr(block, name) != value:
                setattr(block, name, value)
                changed.setdefault(attention.path, {})[name] = value
    return changed
