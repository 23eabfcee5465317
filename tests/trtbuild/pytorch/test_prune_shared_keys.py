"""Heads of queries that share keys (LLaMA, Mistral, Qwen2) go by whole groups, or are kept with a reason."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from trtbuild.errors import ModelError, OptionError  # noqa: E402
from trtbuild.pytorch import InputSpec  # noqa: E402
from trtbuild.pytorch.prune import (  # noqa: E402
    load_pruned,
    prune_channels,
    prune_indices,
    save_pruned,
)
from trtbuild.pytorch.spec import PruneSpec  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

IDS = [InputSpec((1, 6), dtype="int64", low=0, high=49)]
WIDTH, HEADS = 32, 8


class RootMeanSquare(nn.Module):
    """A norm over channels, as LLaMA writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864)."""
    length, size = x.shape[-2:]
    speeds = 10000 ** -(torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(length), speeds).repeat(1, 2).to(x.dtype)
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


class Attention(nn.Module):
    """LLaMA's attention.

    Args:
        keys: heads of keys.
        tiled: let queries read keys in another order.
        counted: keep the numbers of heads, not only how many heads of queries read one head of keys.
    """

    def __init__(self, keys: int, tiled: bool, counted: bool) -> None:
        super().__init__()
        if counted:
            self.num_heads, self.num_key_value_heads = HEADS, keys
        self.share, self.tiled = HEADS // keys, tiled
        self.head_dim = WIDTH // HEADS
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = nn.Linear(WIDTH, keys * self.head_dim, bias=False)
        self.v_proj = nn.Linear(WIDTH, keys * self.head_dim)
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        heads = [
            layer(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        ]
        query, key, value = turned(heads[0]), turned(heads[1]), heads[2]
        if self.tiled:
            key, value = (one.repeat(1, self.share, 1, 1) for one in (key, value))
        else:
            key, value = (one.repeat_interleave(self.share, 1) for one in (key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class Decoder(nn.Module):
    """One block between an embedding and the scores."""

    def __init__(self, keys: int = 4, tiled: bool = False, counted: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, WIDTH)
        self.norm1, self.attention = RootMeanSquare(), Attention(keys, tiled, counted)
        self.norm2 = RootMeanSquare()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, 64), nn.Linear(WIDTH, 64)
        self.down_proj = nn.Linear(64, WIDTH)
        self.head = nn.Linear(WIDTH, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return self.head(x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y)))


def heads_of(module: Any) -> tuple[int, ...]:
    block = module.attention
    layers = (block.q_proj, block.k_proj, block.v_proj)
    return (
        getattr(block, "num_heads", block.q_proj.out_features // block.head_dim),
        getattr(block, "num_key_value_heads", block.k_proj.out_features // block.head_dim),
        *(layer.weight.shape[0] for layer in layers),
        block.o_proj.weight.shape[1],
    )


@pytest.mark.parametrize(("steps", "counted"), [(1, True), (2, True), (1, False)])
def test_queries_go_with_the_keys_that_they_read(tmp_path: Path, steps: int, counted: bool) -> None:
    module = Decoder(counted=counted).eval()
    wish = PruneSpec(0.0, head_ratio=0.5, steps=steps)
    result = prune_channels(module, IDS, wish)
    assert heads_of(result.module) == (4, 2, 16, 8, 8, 16)
    assert heads_of(module) == (8, 4, 32, 16, 16, 32)

    # Without the columns that read them, the removed heads add nothing.
    silent = copy.deepcopy(module).double()
    left = result.module.attention.q_proj.weight
    width = module.attention.head_dim
    for head, rows in enumerate(module.attention.q_proj.weight.split(width)):
        if not any(torch.equal(rows, one) for one in left.split(width)):
            silent.attention.o_proj.weight.data[:, head * width : (head + 1) * width] = 0
    ids = torch.randint(0, 50, (3, 9))
    with torch.no_grad():
        wanted, found = silent(ids), copy.deepcopy(result.module).double()(ids)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))

    save_pruned(result.module, result.history, tmp_path)
    again = load_pruned(Decoder(counted=counted), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids), result.module(ids), rtol=0, atol=0)
    with pytest.raises(ModelError, match="has not"):
        load_pruned(Decoder(keys=8), tmp_path)


def test_a_share_of_channels_takes_heads_and_hidden_channels() -> None:
    result = prune_channels(Decoder().eval(), IDS, PruneSpec(0.5, round_to=1))
    assert heads_of(result.module)[:2] == (4, 2)
    assert result.module.gate_proj.weight.shape == (32, 16)
    kept = prune_channels(
        Decoder().eval(), IDS, PruneSpec(0.0, head_ratio=0.5, ignore=("attention.k_proj",))
    )
    assert heads_of(kept.module)[:2] == (8, 4)


def test_keys_that_are_shared_in_another_order_stay_and_are_named() -> None:
    result = prune_channels(Decoder(tiled=True).eval(), IDS, PruneSpec(0.0, head_ratio=0.5))
    assert heads_of(result.module)[:2] == (8, 4)
    why = {width.path: width.kept for width in result.report.widths}
    assert "computes something else" in why["attention.q_proj"]
    assert "share keys" in why["attention.k_proj"]


class Fused(nn.Module):
    """Attention with 8 heads of queries and 4 of keys, all from one layer, without a mask.

    Args:
        by_group: let the rows lie group by group (Falcon), not queries, keys and values one after the other.
    """

    def __init__(self, by_group: bool) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim, self.by_group = HEADS, 4, 4, by_group
        self.q_size, self.kv_size = WIDTH, WIDTH // 2
        self.qkv_proj, self.o_proj = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = self.qkv_proj(x)
        if self.by_group:
            groups = packed.unflatten(-1, (self.num_kv_heads, -1, self.head_dim))
            query, key, value = groups.split([groups.shape[-2] - 2, 1, 1], -2)
        else:
            parts = packed.split([self.q_size, self.kv_size, self.kv_size], -1)
            query, key, value = (
                one.unflatten(-1, (self.num_kv_heads, -1, self.head_dim)) for one in parts
            )
        scores = torch.einsum("nikhd,njkd->nkhij", query, key[..., 0, :]) / self.head_dim**0.5
        mixed = torch.einsum("nkhij,njkd->nikhd", scores.softmax(-1), value[..., 0, :])
        return self.o_proj(mixed.flatten(2))


class FusedBlocks(nn.Module):
    """Two of them."""

    def __init__(self, by_group: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Fused(by_group) for _ in range(2))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


STATES = [InputSpec((2, 6, WIDTH))]


def without_heads(module: nn.Module, small: nn.Module) -> nn.Module:
    """A copy in float64 without the columns that read heads of which `small` has no column."""
    silent = copy.deepcopy(module).double()
    for dense, cut in zip(silent.blocks, small.blocks):
        columns = [set(column) for column in cut.o_proj.weight.T.double().tolist()]
        for number, column in enumerate(dense.o_proj.weight.T.tolist()):
            if set(column) not in columns:
                dense.o_proj.weight.data[:, number] = 0
    return silent


@pytest.mark.parametrize("by_group", [False, True])
def test_one_layer_may_give_queries_and_shared_keys_in_either_order(
    tmp_path: Path, by_group: bool
) -> None:
    module = FusedBlocks(by_group).eval()
    wish = PruneSpec(0.0, head_ratio=0.5, layer_ratios=(("blocks.1.qkv_proj", 0.75),))
    result = prune_channels(module, STATES, wish)
    numbers = [(one.num_heads, one.num_kv_heads) for one in result.module.blocks]
    assert numbers == [(4, 2), (2, 1)]
    assert [one.qkv_proj.weight.shape[0] for one in result.module.blocks] == [32, 16]

    x = torch.randn(3, 7, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        wanted = without_heads(module, result.module)(x)
        found = copy.deepcopy(result.module).double()(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))

    save_pruned(result.module, result.history, tmp_path)
    again = load_pruned(FusedBlocks(by_group), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x.float()), result.module(x.float()), rtol=0, atol=0)


def test_all_blocks_together_lose_the_share_of_heads_that_was_asked_for() -> None:
    # 30 % of 8 groups are 2.4; rounding each block alone would remove 2 or none of its 4
    module = FusedBlocks(by_group=False).eval()
    result = prune_channels(module, STATES, PruneSpec(0.0, head_ratio=0.3))
    assert sum(one.num_kv_heads for one in result.module.blocks) == 6


def test_groups_of_heads_can_be_named_and_parts_of_them_cannot() -> None:
    module = FusedBlocks(by_group=False).eval()
    second = [*range(8, 16), *range(36, 40), *range(52, 56)]
    result = prune_indices(module, STATES, {"blocks.0.qkv_proj": second, "head": []})
    assert result.module.blocks[0].num_kv_heads == 3
    left = [one for one in range(2 * WIDTH) if one not in second]
    torch.testing.assert_close(
        result.module.blocks[0].qkv_proj.weight, module.blocks[0].qkv_proj.weight[left]
    )
    with pytest.raises(OptionError, match="of its 4 groups is 0 to 7 and 32 to 35 and 48 to 51"):
        prune_indices(module, STATES, {"blocks.0.qkv_proj": second[:8]})
    with pytest.raises(OptionError, match="not all of them"):
        prune_indices(module, STATES, {"blocks.0.qkv_proj": range(64)})
