"""Heads of queries that share keys (LLaMA, Mistral, Qwen2) go by whole groups, or it is said why not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from trtbuild.errors import ModelError  # noqa: E402
from trtbuild.pytorch import InputSpec  # noqa: E402
from trtbuild.pytorch.prune import load_pruned, prune_channels, save_pruned  # noqa: E402
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
        counted: keep the numbers of heads, and not only how many heads of queries read one of keys.
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

    # Without the columns that read them the heads that went add nothing.
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
