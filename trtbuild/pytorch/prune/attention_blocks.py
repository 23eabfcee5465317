"""Attention blocks: found so that pruning respects their heads, and updated afterwards.

A packed projection makes query, key and value of all heads in one tensor. Channels can only be removed
head by head, or the same ones from every head. The module's own numbers (`num_heads`, `head_dim`) are
plain attributes, which Torch-Pruning does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "HEAD_COUNTS",
    "HEAD_NUMBERS",
    "HEAD_WIDTHS",
    "PACKED",
    "SEPARATE",
    "Attention",
    "find_attention",
    "number_in",
    "update_attention",
]

HEAD_COUNTS = ("num_heads", "n_heads", "n_head", "heads", "nhead", "num_attention_heads")
HEAD_WIDTHS = ("head_dim", "dim_head", "d_head", "attention_head_size")
HEAD_NUMBERS = frozenset((*HEAD_COUNTS, *HEAD_WIDTHS))
"""Attributes with the number of heads or the channels of one head."""
PACKED = ("qkv", "to_qkv", "in_proj", "Wqkv", "c_attn")
SEPARATE = (
    ("q", "k", "v"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"),
    ("to_q", "to_k", "to_v"), ("wq", "wk", "wv"), ("q_lin", "k_lin", "v_lin"),
    ("query_proj", "key_proj", "value_proj"), ("linear_q", "linear_k", "linear_v"),
)  # fmt: skip


@dataclass(frozen=True)
class Attention:
    """One attention block.

    Attributes:
        path: its module path.
        count: name of its attribute with the number of heads.
        projections: paths of the linear layers that make queries, keys and values.
        packed: whether one layer makes all three.
    """

    path: str
    count: str
    projections: tuple[str, ...]
    packed: bool


def find_attention(module: nn.Module) -> list[Attention]:
    """Return the blocks that have a number of heads and linear projections by the usual names.

    A block whose stated head width does not fit its layers is not returned: a layer with keys and values for
    only one head (GPT-BigCode) may still be divisible into three parts per head.
    """
    found = []
    for path, block in module.named_modules():
        count = number_in(block, HEAD_COUNTS)
        if not count or isinstance(block, nn.MultiheadAttention):
            continue
        heads = getattr(block, count)
        packed = [
            name
            for name in PACKED
            if _splits(getattr(block, name, None), 3 * heads)
            and _is_told(block, getattr(block, name).out_features // (3 * heads))
        ]
        separate = [
            names
            for names in SEPARATE
            if all(_splits(getattr(block, n, None), heads) for n in names)
            and _is_told(block, getattr(block, names[0]).out_features // heads)
        ]
        names = packed[:1] or [name for group in separate[:1] for name in group]
        if names:
            paths = tuple(f"{path}.{name}".lstrip(".") for name in names)
            found.append(Attention(path, count, paths, bool(packed)))
    return found


def number_in(block: nn.Module, names: Sequence[str]) -> str:
    """Return the first of `names` that is an attribute of `block` with a whole number; empty without one."""
    return next((name for name in names if isinstance(getattr(block, name, None), int)), "")


def _splits(layer: object, parts: int) -> bool:
    return isinstance(layer, nn.Linear) and parts > 0 and layer.out_features % parts == 0


def _is_told(block: nn.Module, width: int) -> bool:
    """Whether `block` states that a head has `width` channels, or states no width."""
    return all(getattr(block, name) == width for name in _head_widths(block))


def _head_widths(block: nn.Module) -> list[str]:
    """The attributes of `block` with the number of channels of a head."""
    return [name for name in HEAD_WIDTHS if isinstance(getattr(block, name, None), int)]


def update_attention(
    module: nn.Module, blocks: Sequence[Attention], heads: Mapping[nn.Module, int]
) -> dict[str, dict[str, int]]:
    """Set number and width of heads in every block after its projections were cut.

    Returns:
        Module path -> attribute -> new value, of the changed attributes.
    """
    changed: dict[str, dict[str, int]] = {}
    for attention in blocks:
        block = module.get_submodule(attention.path)
        layer = module.get_submodule(attention.projections[0])
        count = heads[layer]
        width = layer.out_features // (count * (3 if attention.packed else 1))
        wanted = {attention.count: count, **dict.fromkeys(_head_widths(block), width)}
        for name, value in wanted.items():
            if getattr(block, name) != value:
                setattr(block, name, value)
                changed.setdefault(attention.path, {})[name] = value
    return changed
