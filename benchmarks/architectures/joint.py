"""Networks with two kinds of input: words, sounds or clicked points together with a picture or a spectrum."""

from __future__ import annotations

import math

import torch
from architectures.parts import MLP, SelfAttention, conv_norm, heads, joined
from torch import nn
from torch.nn import functional as F  # noqa: N812  its usual name

__all__ = ["Clip", "MaskDecoder", "MaskFormer", "SpeechDecoder"]


class _CrossAttention(nn.Module):
    """Attention with keys and values from another input."""

    def __init__(self, size: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(size, size) for _ in range(4))

    def forward(
        self,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        q, k = heads(self.q(x), self.num_heads), heads(self.k(keys), self.num_heads)
        v = heads(self.v(keys if values is None else values), self.num_heads)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores + mask
        return self.out(joined(scores.softmax(-1) @ v))


class _Block(nn.Module):
    """Attention and an MLP behind norms; a causal mask is added where there is one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(size), nn.LayerNorm(size)])
        self.attend, self.mlp = _CrossAttention(size), MLP(size, 2 * size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y = self.norms[0](x)
        x = x + self.attend(y, y, mask=mask)
        return x + self.mlp(self.norms[1](x))


class Clip(nn.Module):
    """A picture and a text as vectors of the same space (Radford et al., 2021)."""

    def __init__(self, size: int = 48, length: int = 12) -> None:
        super().__init__()
        self.embed, self.tokens = nn.Conv2d(3, size, 8, 8), nn.Embedding(100, size)
        self.first = nn.Parameter(torch.randn(1, 1, size))
        self.places = nn.Parameter(torch.randn(1, 65, size))
        self.positions = nn.Parameter(torch.randn(1, length, size))
        self.seeing = nn.ModuleList([_Block(size) for _ in range(2)])
        self.reading = nn.ModuleList([_Block(size) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(size) for _ in range(3)])
        self.project = nn.ModuleList([nn.Linear(size, 32, bias=False) for _ in range(2)])
        self.register_buffer("mask", torch.full((length, length), -1e4).triu(1))
        self.scale = nn.Parameter(torch.tensor(2.6))

    def forward(self, picture: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        y = self.embed(picture).flatten(2).transpose(1, 2)
        y = torch.cat([self.first.expand(y.shape[0], -1, -1), y], 1) + self.places
        y = self.norms[0](y)
        for block in self.seeing:
            y = block(y)
        seen = self.project[0](self.norms[1](y[:, 0]))
        z = self.tokens(words) + self.positions
        for block in self.reading:
            z = block(z, self.mask)
        end = words.argmax(-1)[:, None, None].expand(
            -1, 1, z.shape[-1]
        )  # the end token has the largest number
        read = self.project[1](self.norms[2](z).gather(1, end).squeeze(1))
        return self.scale.exp() * F.normalize(seen, dim=-1) @ F.normalize(read, dim=-1).T


class _TwoWays(nn.Module):
    """Points look at a picture, and the picture at points."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.there, self.back = (_CrossAttention(size) for _ in range(3))
        self.mlp = MLP(size, 2 * size)
        self.norms = nn.ModuleList([nn.LayerNorm(size) for _ in range(4)])

    def forward(
        self, x: torch.Tensor, picture: torch.Tensor, points: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = x + points
        x = self.norms[0](x + self.inner(y, y, x))
        x = self.norms[1](x + self.there(x + points, picture + places, picture))
        x = self.norms[2](x + self.mlp(x))
        picture = self.norms[3](picture + self.back(picture + places, x + points, x))
        return x, picture


class MaskDecoder(nn.Module):
    """Masks of the objects that a user points at, from a picture's features (Kirillov et al., 2023)."""

    def __init__(self, size: int = 32, num_masks: int = 3) -> None:
        super().__init__()
        self.register_buffer("waves", torch.randn(2, size // 2))
        self.labels, self.answers = nn.Embedding(2, size), nn.Embedding(num_masks, size)
        self.blocks = nn.ModuleList([_TwoWays(size) for _ in range(2)])
        self.up = nn.Sequential(
            nn.ConvTranspose2d(size, size // 2, 2, 2), nn.BatchNorm2d(size // 2), nn.GELU(),
            nn.ConvTranspose2d(size // 2, size // 4, 2, 2), nn.GELU(),
        )  # fmt: skip
        self.weights = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size // 4))
        self.quality = nn.Linear(size, 1)

    def _position(self, places: torch.Tensor) -> torch.Tensor:
        angles = 2 * math.pi * ((2 * places - 1) @ self.waves)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def forward(
        self, features: torch.Tensor, points: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, _, height, width = features.shape
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], -1)
        places = self._position(grid.reshape(1, -1, 2))
        given = self._position(points) + self.labels(labels)
        answers = self.answers.weight.unsqueeze(0).expand(batch, -1, -1)
        asked = torch.cat([answers, given], 1)
        x, picture = asked, features.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x, picture = block(x, picture, asked, places)
        large = self.up(picture.transpose(1, 2).reshape(features.shape))
        answers = x[:, : answers.shape[1]]
        masks = self.weights(answers) @ large.flatten(2)
        masks = masks.reshape(batch, -1, *large.shape[-2:])
        return masks, self.quality(answers).squeeze(-1)


class MaskFormer(nn.Module):
    """Queries that attend within their last masks, and masks as products (Cheng et al., 2022)."""

    def __init__(self, size: int = 32, num_queries: int = 8) -> None:
        super().__init__()
        self.stem, self.down = conv_norm(3, size, 3, 2), conv_norm(size, size, 3, 2)
        self.pixels = nn.Conv2d(size, size, 3, padding=1)
        self.queries = nn.Parameter(torch.randn(1, num_queries, size))
        self.there = nn.ModuleList([_CrossAttention(size) for _ in range(2)])
        self.inner = nn.ModuleList([SelfAttention(size, 4) for _ in range(2)])
        self.mlps = nn.ModuleList([MLP(size, 2 * size) for _ in range(2)])
        self.norm, self.mask, self.classes = nn.LayerNorm(size), MLP(size, size), nn.Linear(size, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.stem(x)
        coarse = self.down(fine)
        pixels = self.pixels(fine)
        memory = coarse.flatten(2).transpose(1, 2)
        y = self.queries.expand(x.shape[0], -1, -1)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask(self.norm(y)), pixels)
        for there, inner, mlp in zip(self.there, self.inner, self.mlps):
            small = F.interpolate(masks, size=coarse.shape[-2:], mode="bilinear")
            hidden = (small.flatten(2).sigmoid() < 0.5).unsqueeze(1)
            y = y + there(
                y, memory, mask=torch.zeros_like(hidden.float()).masked_fill(hidden, -1e4)
            )
            y = y + inner(y)
            y = self.norm(y + mlp(y))
            masks = torch.einsum("bqc,bchw->bqhw", self.mask(y), pixels)
        return self.classes(y), masks


class SpeechDecoder(nn.Module):
    """One step of a speech decoder: the next word from earlier words and the sound (Radford et al., 2023).

    Keys and values of earlier words are inputs and outputs; those of the sound are computed here.
    """

    def __init__(self, size: int = 48, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.tokens, self.positions = nn.Embedding(100, size), nn.Embedding(32, size)
        self.q, self.k, self.v, self.out = (nn.Linear(size, size) for _ in range(4))
        self.there, self.mlp = _CrossAttention(size, num_heads), MLP(size, 4 * size)
        self.norms = nn.ModuleList([nn.LayerNorm(size) for _ in range(4)])

    def forward(
        self, token: torch.Tensor, sound: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.tokens(token) + self.positions.weight[keys.shape[2]]
        y = self.norms[0](x)
        k = torch.cat([keys, heads(self.k(y), self.num_heads)], 2)
        v = torch.cat([values, heads(self.v(y), self.num_heads)], 2)
        q = heads(self.q(y), self.num_heads)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        x = x + self.out(joined(scores.softmax(-1) @ v))
        x = x + self.there(self.norms[1](x), sound)
        x = x + self.mlp(self.norms[2](x))
        return self.norms[3](x) @ self.tokens.weight.T, k, v
