"""Small networks that classify pictures, with the typical parts of each kind."""

from __future__ import annotations

import torch
from architectures.parts import MLP, SelfAttention, conv_norm, stack
from torch import nn
from torch.nn import functional as F  # noqa: N812  its usual name

__all__ = ["ConvNeXt", "EfficientNet", "Mixer", "MobileViT", "ReIdentifier", "Swin", "VideoNet"]


class _LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [batch, channels, height, width]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ConvNeXtBlock(nn.Module):
    """A block of ConvNeXt V2: depthwise 7x7, LayerNorm, a wide MLP with global response normalization."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(size, size, 7, padding=3, groups=size)
        self.norm = nn.LayerNorm(size)
        self.widen, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.gamma = nn.Parameter(torch.rand(1, 1, 1, 4 * size))
        self.beta = nn.Parameter(torch.rand(1, 1, 1, 4 * size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = F.gelu(self.widen(y))
        energy = y.pow(2).sum((1, 2), keepdim=True).sqrt()
        y = self.gamma * (y * (energy / (energy.mean(-1, keepdim=True) + 1e-6))) + self.beta + y
        return x + self.narrow(y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Sequential):
    """ConvNeXt V2 of two stages (Woo et al., 2023)."""

    def __init__(self, size: int = 32) -> None:
        super().__init__(
            nn.Conv2d(3, size, 4, 4),
            _LayerNorm2d(size),
            stack(2, lambda: _ConvNeXtBlock(size)),
            _LayerNorm2d(size),
            nn.Conv2d(size, 2 * size, 2, 2),
            stack(2, lambda: _ConvNeXtBlock(2 * size)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.LayerNorm(2 * size),
            nn.Linear(2 * size, 10),
        )


class _SqueezeExcite(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(size, size // 4, 1), nn.Conv2d(size // 4, size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = F.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * self.expand(weight).sigmoid()


class _MBConv(nn.Module):
    def __init__(self, num_in: int, num_out: int, size: int, stride: int) -> None:
        super().__init__()
        wide = 4 * num_in
        self.adds = stride == 1 and num_in == num_out
        self.body = nn.Sequential(
            conv_norm(num_in, wide, 1, act=nn.SiLU),
            conv_norm(wide, wide, size, stride, groups=wide, act=nn.SiLU),
            _SqueezeExcite(wide),
            conv_norm(wide, num_out, 1, act=None),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class EfficientNet(nn.Sequential):
    """Inverted bottlenecks with squeeze and excitation (Tan and Le, 2019)."""

    def __init__(self) -> None:
        super().__init__(
            conv_norm(3, 16, 3, 2, act=nn.SiLU),
            _MBConv(16, 24, 3, 2),
            _MBConv(24, 24, 3, 1),
            _MBConv(24, 40, 5, 2),
            _MBConv(40, 40, 5, 1),
            conv_norm(40, 160, 1, act=nn.SiLU),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(160, 10),
        )


class _WindowAttention(nn.Module):
    """Attention in windows, shifted by half a window in every second layer, with a relative position bias."""

    def __init__(self, size: int, extent: int, window: int, shift: int) -> None:
        super().__init__()
        self.extent, self.window, self.shift, self.num_heads = extent, window, shift, 4
        self.norm, self.qkv = nn.LayerNorm(size), nn.Linear(size, 3 * size)
        self.out, self.scale = nn.Linear(size, size), (size // self.num_heads) ** -0.5
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, self.num_heads))
        where = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        )
        steps = where.flatten(1)[:, :, None] - where.flatten(1)[:, None, :] + window - 1
        self.register_buffer("index", steps[0] * (2 * window - 1) + steps[1])
        self.register_buffer("mask", self._mask())

    def _mask(self) -> torch.Tensor:
        """-100 between positions that share a window only because the picture was rolled."""
        part = torch.zeros(1, self.extent, self.extent, 1)
        edges = (0, self.extent - self.window, self.extent - self.shift, self.extent)
        for row in range(3):
            for column in range(3):
                rows = slice(edges[row], edges[row + 1])
                part[:, rows, edges[column] : edges[column + 1]] = 3 * row + column
        parts = self._windows(part).squeeze(-1)
        return (parts[:, :, None] != parts[:, None, :]).float() * -100.0

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, height, width, channels] -> [batch * windows, positions, channels]."""
        batch, num, window = x.shape[0], self.extent // self.window, self.window
        x = x.view(batch, num, window, num, window, x.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, x.shape[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, num = self.norm(x), self.extent // self.window
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = self._windows(y)
        length, channels = y.shape[1:]
        qkv = self.qkv(y).view(-1, length, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = (q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        if self.shift:
            scores = scores.view(-1, num * num, self.num_heads, length, length)
            scores = (scores + self.mask[None, :, None]).view(-1, self.num_heads, length, length)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, length, channels))
        y = y.view(-1, num, num, self.window, self.window, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.extent, self.extent, channels)
        return x + (torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y)


class _Residual(nn.Module):
    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Swin(nn.Module):
    """Shifted windows, with patches merged between two stages (Liu et al., 2021)."""

    def __init__(self, size: int = 32, extent: int = 16, window: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, size, 4, 4)
        self.first = self._stage(size, extent, window)
        self.norm, self.merge = nn.LayerNorm(4 * size), nn.Linear(4 * size, 2 * size, bias=False)
        self.second = self._stage(2 * size, extent // 2, window)
        self.head = nn.Linear(2 * size, 10)

    @staticmethod
    def _stage(size: int, extent: int, window: int) -> nn.Sequential:
        blocks: list[nn.Module] = []
        for shift in (0, window // 2):
            blocks.append(_WindowAttention(size, extent, window, shift))
            blocks.append(_Residual(nn.LayerNorm(size), MLP(size, 4 * size)))
        return nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.embed(x).permute(0, 2, 3, 1))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.second(self.merge(self.norm(torch.cat(corners, -1))))
        return self.head(x.mean((1, 2)))


class _MixerBlock(nn.Module):
    def __init__(self, length: int, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(size), nn.LayerNorm(size)])
        self.tokens, self.channels = MLP(length, 2 * length), MLP(size, 2 * size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Mixer(nn.Module):
    """MLPs over positions and over channels in turn (Tolstikhin et al., 2021)."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.embed, self.blocks = (
            nn.Conv2d(3, size, 8, 8),
            stack(3, lambda: _MixerBlock(64, size)),
        )
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.embed(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class _MobileViTBlock(nn.Module):
    """Attention among the pixels with the same place in their patches of 2x2."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            conv_norm(size, size, act=nn.SiLU), nn.Conv2d(size, width, 1, bias=False)
        )
        self.layers = stack(
            2,
            lambda: nn.Sequential(
                _Residual(nn.LayerNorm(width), SelfAttention(width, 4, fused=True)),
                _Residual(
                    nn.LayerNorm(width),
                    nn.Sequential(
                        nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
                    ),
                ),
            ),
        )
        self.back, self.fuse = (
            conv_norm(width, size, 1, act=nn.SiLU),
            conv_norm(2 * size, size, act=nn.SiLU),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.local(x)
        batch, width, height, length = y.shape
        y = y.reshape(batch * width * (height // 2), 2, length // 2, 2).transpose(1, 2)
        y = y.reshape(batch, width, height * length // 4, 4).transpose(1, 3)
        y = self.layers(y.reshape(batch * 4, height * length // 4, width))
        y = y.view(batch, 4, height * length // 4, width).transpose(1, 3)
        y = y.reshape(batch * width * (height // 2), length // 2, 2, 2).transpose(1, 2)
        return self.fuse(torch.cat([x, self.back(y.reshape(batch, width, height, length))], 1))


class MobileViT(nn.Sequential):
    """Convolutions, and attention over unfolded pictures (Mehta and Rastegari, 2022)."""

    def __init__(self) -> None:
        super().__init__(
            conv_norm(3, 16, 3, 2, act=nn.SiLU),
            _MBConv(16, 24, 3, 2),
            _MobileViTBlock(24, 32),
            _MBConv(24, 32, 3, 2),
            _MobileViTBlock(32, 48),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class _SpaceThenTime(nn.Module):
    """A residual block with 3D convolutions split into space and time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(size, 2 * size, (1, 3, 3), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(2 * size),
            nn.ReLU(),
            nn.Conv3d(2 * size, size, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(size),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class VideoNet(nn.Sequential):
    """3D convolutions, in one piece and as (2+1)D (Tran et al., 2018)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(3, 16, 3, (1, 2, 2), 1),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            _SpaceThenTime(16),
            nn.AvgPool3d(2),
            nn.Conv3d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class _Scales(nn.Module):
    """Streams with growing receptive fields, weighted by one shared gate (Zhou et al., 2019)."""

    def __init__(self, num_in: int, num_out: int, num_streams: int = 3) -> None:
        super().__init__()
        inner = num_out // 4
        self.narrow, self.widen = (
            conv_norm(num_in, inner, 1),
            conv_norm(inner, num_out, 1, act=None),
        )
        self.streams = nn.ModuleList(
            [stack(number + 1, lambda: self._lite(inner)) for number in range(num_streams)]
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(inner, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, inner, 1),
            nn.Sigmoid(),
        )
        self.beside = conv_norm(num_in, num_out, 1, act=None)

    @staticmethod
    def _lite(size: int) -> nn.Sequential:
        pointwise = nn.Conv2d(size, size, 1, bias=False)
        return nn.Sequential(pointwise, conv_norm(size, size, groups=size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(x)
        seen = [stream(y) for stream in self.streams]
        y = sum(one * self.gate(one) for one in seen)
        return F.relu(self.widen(y) + self.beside(x))


class ReIdentifier(nn.Module):
    """The identity of a person as a vector of length one, for trackers (OSNet with a normalized neck)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = conv_norm(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)
        self.stages = nn.Sequential(_Scales(16, 32), nn.AvgPool2d(2, 2), _Scales(32, 48))
        self.linear, self.neck = nn.Linear(48, 64), nn.BatchNorm1d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stages(self.pool(self.stem(x))).mean((2, 3))
        return F.normalize(self.neck(self.linear(y)), dim=1)
