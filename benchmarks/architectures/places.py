"""Networks with answers in pixels: detectors, segmenters, and networks that make pictures."""

from __future__ import annotations

import math

import torch
from architectures.parts import MLP, SelfAttention, conv_norm, heads, joined, stack
from torch import nn
from torch.nn import functional as F  # noqa: N812  its usual name

__all__ = [
    "CenterNet",
    "Denoiser",
    "Detr",
    "Pyramid",
    "Restorer",
    "RtDetr",
    "SegFormer",
    "Siamese",
    "SuperResolution",
    "UNet",
    "Yolo",
    "YoloArea",
]


def _backbone(*sizes: int) -> nn.Sequential:
    pairs = zip((3, *sizes), sizes)
    return nn.Sequential(*(conv_norm(num_in, num_out, 3, 2) for num_in, num_out in pairs))


class Detr(nn.Module):
    """Object queries attend to all places of a picture (Carion et al., 2020), by PyTorch's own layers."""

    def __init__(self, size: int = 32, num_queries: int = 10) -> None:
        super().__init__()
        self.backbone = _backbone(16, 24, size)
        self.encoder = nn.TransformerEncoderLayer(size, 4, 64, batch_first=True)
        self.decoder = nn.ModuleList(
            [nn.TransformerDecoderLayer(size, 4, 64, batch_first=True) for _ in range(2)]
        )
        self.queries = nn.Parameter(torch.randn(num_queries, size))
        self.positions = nn.Parameter(torch.randn(64, size))
        self.classes, self.boxes = (
            nn.Linear(size, 5),
            nn.Sequential(MLP(size, size), nn.ReLU(), nn.Linear(size, 4)),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places = self.backbone(x).flatten(2).transpose(1, 2) + self.positions
        memory = self.encoder(places)
        y = self.queries.unsqueeze(0).expand(x.shape[0], -1, -1)
        for layer in self.decoder:
            y = layer(y, memory)
        return self.classes(y), self.boxes(y).sigmoid()


class _DeformableAttention(nn.Module):
    """Each query reads a few points of two levels, by bilinear sampling (Zhu et al., 2021)."""

    def __init__(self, size: int, num_heads: int = 4, num_points: int = 4) -> None:
        super().__init__()
        self.num_heads, self.num_points, num = num_heads, num_points, num_heads * num_points * 2
        self.offsets, self.weights = nn.Linear(size, num * 2), nn.Linear(size, num)
        self.value, self.out = nn.Linear(size, size), nn.Linear(size, size)

    def forward(
        self, queries: torch.Tensor, boxes: torch.Tensor, levels: list[torch.Tensor]
    ) -> torch.Tensor:
        batch, length, size = queries.shape
        shape = (batch, length, self.num_heads, 2, self.num_points)
        offsets = self.offsets(queries).view(*shape, 2)
        weights = self.weights(queries).view(*shape[:3], 2 * self.num_points).softmax(-1)
        centers, extents = boxes[:, :, None, None, None, :2], boxes[:, :, None, None, None, 2:]
        places = 2 * (centers + offsets / self.num_points * extents * 0.5) - 1
        read = []
        for level, one in enumerate(levels):
            height, width = one.shape[-2:]
            values = self.value(one.flatten(2).transpose(1, 2))
            values = heads(values, self.num_heads).transpose(-2, -1)
            values = values.reshape(batch * self.num_heads, size // self.num_heads, height, width)
            grid = places[:, :, :, level].transpose(1, 2).flatten(0, 1)
            read.append(F.grid_sample(values, grid, mode="bilinear", align_corners=False))
        weights = weights.transpose(1, 2).reshape(batch * self.num_heads, 1, length, -1)
        y = (torch.cat(read, -1) * weights).sum(-1)
        return self.out(y.view(batch, size, length).transpose(1, 2))


class RtDetr(nn.Module):
    """The best places become queries of deformable attention (Zhao et al., 2024)."""

    def __init__(self, size: int = 32, num_queries: int = 12) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.backbone, self.down = _backbone(16, 24, size), conv_norm(size, size, 3, 2)
        self.score, self.box = nn.Linear(size, 5), nn.Linear(size, 4)
        self.attend, self.self_attend = _DeformableAttention(size), SelfAttention(size, 4)
        self.norms = nn.ModuleList([nn.LayerNorm(size) for _ in range(3)])
        self.mlp, self.refine = MLP(size, 64), nn.Linear(size, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.backbone(x)
        levels = [fine, self.down(fine)]
        memory = torch.cat([one.flatten(2).transpose(1, 2) for one in levels], 1)
        best = self.score(memory).amax(-1).topk(self.num_queries, dim=1).indices
        queries = memory.gather(1, best.unsqueeze(-1).expand(-1, -1, memory.shape[-1]))
        boxes = self.box(queries)
        y = self.norms[0](queries + self.self_attend(queries))
        y = self.norms[1](y + self.attend(y, boxes.sigmoid(), levels))
        y = self.norms[2](y + self.mlp(y))
        return self.score(y), (boxes + self.refine(y)).sigmoid()


class CenterNet(nn.Module):
    """Heat maps of centers: ConvTranspose, peaks by MaxPool, the best by TopK (Zhou et al., 2019)."""

    def __init__(self, num_best: int = 16) -> None:
        super().__init__()
        self.num_best = num_best
        self.backbone = _backbone(16, 24, 32)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
        )
        self.heat = nn.Sequential(conv_norm(24, 24), nn.Conv2d(24, 3, 1))
        self.size = nn.Sequential(conv_norm(24, 24), nn.Conv2d(24, 2, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.up(self.backbone(x))
        heat, sizes = self.heat(y).sigmoid(), self.size(y).flatten(2).transpose(1, 2)
        peaks = heat * (F.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, where = peaks.flatten(1).topk(self.num_best)
        width = heat.shape[-1]
        place = where % (width * width)
        sizes = sizes.gather(1, place.unsqueeze(-1).expand(-1, -1, 2))
        centers = torch.stack([place % width, place // width], -1).float()
        return scores, where // (width * width), torch.cat([centers - sizes, centers + sizes], -1)


class Yolo(nn.Module):
    """CSP blocks, chained pooling, and boxes as distributions over distances, as in YOLOv8."""

    def __init__(self, num_bins: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_norm(3, 16, 3, 2, act=nn.SiLU), conv_norm(16, 32, 3, 2, act=nn.SiLU)
        )
        self.inner = conv_norm(16, 16, act=nn.SiLU)
        self.fuse = conv_norm(48, 32, 1, act=nn.SiLU)
        self.pool, self.pooled = nn.MaxPool2d(5, 1, 2), conv_norm(128, 32, 1, act=nn.SiLU)
        self.box, self.classes = nn.Conv2d(32, 4 * num_bins, 1), nn.Conv2d(32, 3, 1)
        self.num_bins, self.bins = num_bins, nn.Conv2d(num_bins, 1, 1, bias=False)
        self.bins.weight.data = torch.arange(num_bins).float().view(1, num_bins, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        left, right = y.chunk(2, 1)
        y = self.fuse(torch.cat([left, right, self.inner(right)], 1))
        pools = [y]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        y = self.pooled(torch.cat(pools, 1))
        bins = self.box(y).flatten(2).view(x.shape[0], 4, self.num_bins, -1).transpose(1, 2)
        distances = self.bins(bins.softmax(1)).squeeze(1)
        near, far = distances.chunk(2, 1)
        boxes = torch.cat([(near + far) / 2, far - near], 1)
        return torch.cat([boxes, self.classes(y).flatten(2).sigmoid()], 1)


class _AreaAttention(nn.Module):
    """Attention within each of a few strips of a picture, plus a depthwise convolution."""

    def __init__(self, size: int, num_heads: int = 2, areas: int = 4) -> None:
        super().__init__()
        self.num_heads, self.areas = num_heads, areas
        self.qkv = conv_norm(size, 3 * size, 1, act=None)
        self.place = conv_norm(size, size, 7, groups=size, act=None)
        self.out = conv_norm(size, size, 1, act=None)
        self.mlp = nn.Sequential(
            conv_norm(size, 2 * size, 1, act=nn.SiLU), conv_norm(2 * size, size, 1, act=None)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, size, height, width = x.shape
        y = self.qkv(x).flatten(2).transpose(1, 2)
        y = y.reshape(batch * self.areas, height * width // self.areas, 3 * size)
        q, k, v = (heads(one, self.num_heads) for one in y.chunk(3, -1))
        scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5)
        y, v = joined(scores.softmax(-1) @ v), joined(v)
        y, v = (
            one.reshape(batch, height * width, size).transpose(1, 2).reshape(x.shape)
            for one in (y, v)
        )
        x = x + self.out(y + self.place(v))
        return x + self.mlp(x)


class YoloArea(nn.Module):
    """Area attention in a residual branch, and a head of depthwise convolutions, as in YOLOv12."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_norm(3, 16, 3, 2, act=nn.SiLU), conv_norm(16, size, 3, 2, act=nn.SiLU)
        )
        self.blocks = stack(2, lambda: _AreaAttention(size))
        self.fuse, self.scale = (
            conv_norm(2 * size, size, 1, act=nn.SiLU),
            nn.Parameter(torch.rand(size)),
        )
        self.down = conv_norm(size, size, 3, 2, act=nn.SiLU)
        self.join = conv_norm(2 * size, size, 1, act=nn.SiLU)
        self.head = nn.Sequential(
            conv_norm(size, size, 3, groups=size, act=nn.SiLU),
            conv_norm(size, size, 1, act=nn.SiLU),
        )
        self.box, self.classes = nn.Conv2d(size, 4, 1), nn.Conv2d(size, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        y = y + self.scale.view(1, -1, 1, 1) * self.fuse(torch.cat([y, self.blocks(y)], 1))
        deep = self.down(y)
        deep = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        y = self.head(self.join(torch.cat([y, deep], 1)))
        return torch.cat([self.box(y), self.classes(y).sigmoid()], 1).flatten(2)


class Pyramid(nn.Module):
    """A feature pyramid with one head of GroupNorm for all levels, as in RetinaNet and FCOS."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            [_backbone(16, 24), conv_norm(24, 32, 3, 2), conv_norm(32, 48, 3, 2)]
        )
        self.lateral = nn.ModuleList([nn.Conv2d(num, size, 1) for num in (24, 32, 48)])
        self.smooth = nn.ModuleList([nn.Conv2d(size, size, 3, padding=1) for _ in range(3)])
        self.head = nn.Sequential(
            nn.Conv2d(size, size, 3, padding=1), nn.GroupNorm(8, size), nn.ReLU()
        )
        self.classes, self.scale = nn.Conv2d(size, 5, 3, padding=1), nn.Parameter(torch.rand(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        top, answers = None, []
        for number in (2, 1, 0):
            y = self.lateral[number](features[number])
            top = y if top is None else y + F.interpolate(top, size=y.shape[-2:], mode="nearest")
            answer = self.classes(self.head(self.smooth[number](top))) * self.scale[number]
            answers.append(answer.permute(0, 2, 3, 1).flatten(1, 2))
        return torch.cat(answers, 1)


class _Overlapping(nn.Module):
    """A stage of SegFormer: overlapping patches, attention to fewer places, an MLP with a convolution."""

    def __init__(self, num_in: int, size: int, reduce: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(num_in, size, 3, 2, 1)
        self.norms = nn.ModuleList([nn.LayerNorm(size) for _ in range(4)])
        self.q, self.kv, self.out = (nn.Linear(size, num * size) for num in (1, 2, 1))
        self.reduce = nn.Conv2d(size, size, reduce, reduce)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.mix = nn.Conv2d(2 * size, 2 * size, 3, padding=1, groups=2 * size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        shape = x.shape
        x = self.norms[0](x.flatten(2).transpose(1, 2))
        y = self.norms[1](x)
        few = self.reduce(y.transpose(1, 2).reshape(shape)).flatten(2).transpose(1, 2)
        k, v = (heads(one, 2) for one in self.kv(self.norms[2](few)).chunk(2, -1))
        q = heads(self.q(y), 2)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        x = x + self.out(joined(scores.softmax(-1) @ v))
        y = self.widen(self.norms[3](x)).transpose(1, 2)
        y = self.mix(y.reshape(shape[0], -1, *shape[2:])).flatten(2).transpose(1, 2)
        x = x + self.narrow(F.gelu(y))
        return x.transpose(1, 2).reshape(shape)


class SegFormer(nn.Module):
    """Transformer stages and a head of linear layers (Xie et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([_Overlapping(3, 16, 4), _Overlapping(16, 32, 2)])
        self.linear = nn.ModuleList([nn.Conv2d(size, 24, 1) for size in (16, 32)])
        self.fuse, self.head = conv_norm(48, 24, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = []
        y = x
        for stage, linear in zip(self.stages, self.linear):
            y = stage(y)
            features.append(linear(y))
        size = features[0].shape[-2:]
        features = [
            F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in features
        ]
        y = self.head(self.fuse(torch.cat(features, 1)))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Down by MaxPool, up by ConvTranspose or Resize, with skip connections (Ronneberger et al., 2015)."""

    def __init__(self, *, transposed: bool = True) -> None:
        super().__init__()
        sizes = (16, 32, 48)
        self.down = nn.ModuleList(
            [self._twice(num_in, num_out) for num_in, num_out in zip((3, *sizes), sizes)]
        )
        self.up = nn.ModuleList(
            [self._upwards(48, 32, transposed), self._upwards(32, 16, transposed)]
        )
        self.join, self.head = (
            nn.ModuleList([self._twice(64, 32), self._twice(32, 16)]),
            nn.Conv2d(16, 2, 1),
        )

    @staticmethod
    def _twice(num_in: int, num_out: int) -> nn.Sequential:
        return nn.Sequential(conv_norm(num_in, num_out), conv_norm(num_out, num_out))

    @staticmethod
    def _upwards(num_in: int, num_out: int, transposed: bool) -> nn.Module:
        if transposed:
            return nn.ConvTranspose2d(num_in, num_out, 2, 2)
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        return nn.Sequential(up, nn.Conv2d(num_in, num_out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for number, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for up, join, beside in zip(self.up, self.join, (kept[1], kept[0])):
            x = join(torch.cat([up(x), beside], 1))
        return self.head(x)


class _Scaled(nn.Module):
    """A residual block of EDSR, whose sum is scaled."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(size, size, 3, padding=1), nn.PReLU(size), nn.Conv2d(size, size, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * self.body(x)


class SuperResolution(nn.Module):
    """A picture of twice the size, by pixel shuffle (Shi et al., 2016; Lim et al., 2017)."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.head, self.body = nn.Conv2d(3, size, 3, padding=1), stack(3, lambda: _Scaled(size))
        self.tail = nn.Sequential(nn.Conv2d(size, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.head(x)
        y = self.tail(y + self.body(y))
        larger = F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False)
        return (y + larger).clamp(0, 1)


class _Gated(nn.Module):
    """A block without activations: it multiplies two halves and weights channels (Chen et al., 2022)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(1, size), nn.GroupNorm(1, size)])
        self.widen, self.narrow = nn.Conv2d(size, 2 * size, 1), nn.Conv2d(size, size, 1)
        self.depthwise = nn.Conv2d(2 * size, 2 * size, 3, padding=1, groups=2 * size)
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(size, size, 1))
        self.up, self.down = nn.Conv2d(size, 2 * size, 1), nn.Conv2d(size, size, 1)
        self.scales = nn.Parameter(torch.rand(2, 1, size, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.depthwise(self.widen(self.norms[0](x))).chunk(2, 1)
        y = left * right
        x = x + self.scales[0] * self.narrow(y * self.weigh(y))
        left, right = self.up(self.norms[1](x)).chunk(2, 1)
        return x + self.scales[1] * self.down(left * right)


class Restorer(nn.Module):
    """A denoiser: gated blocks in a U, as in NAFNet."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, size, 3, padding=1), nn.Conv2d(size, 3, 3, padding=1)
        self.first, self.inner, self.last = _Gated(size), _Gated(2 * size), _Gated(size)
        self.down = nn.Conv2d(size, 2 * size, 2, 2)
        self.up = nn.Sequential(nn.Conv2d(2 * size, 4 * size, 1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(self.head(x))
        y = self.up(self.inner(self.down(first)))
        return x + self.tail(self.last(y + first))


class _TimedBlock(nn.Module):
    """GroupNorm, SiLU and convolutions, with the time added in between."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, size), nn.GroupNorm(8, size)])
        self.convs = nn.ModuleList([nn.Conv2d(size, size, 3, padding=1) for _ in range(2)])
        self.time = nn.Linear(32, size)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        y = self.convs[0](F.silu(self.norms[0](x))) + self.time(F.silu(time))[:, :, None, None]
        return x + self.convs[1](F.silu(self.norms[1](y)))


class Denoiser(nn.Module):
    """The U-Net of a diffusion model: timed blocks, with attention at the bottom (Ho et al., 2020)."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32))
        self.head, self.tail = nn.Conv2d(3, size, 3, padding=1), nn.Conv2d(size, 3, 3, padding=1)
        self.down, self.up = nn.Conv2d(size, size, 3, 2, 1), nn.Conv2d(2 * size, size, 1)
        self.blocks = nn.ModuleList([_TimedBlock(size) for _ in range(3)])
        self.norm, self.attend = nn.GroupNorm(8, size), SelfAttention(size, 4, fused=True)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        rates = torch.exp(torch.arange(16) * (-math.log(10000.0) / 16))
        angles = time[:, None] * rates[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        first = self.blocks[0](self.head(x), time)
        y = self.blocks[1](self.down(first), time)
        places = self.attend(self.norm(y).flatten(2).transpose(1, 2))
        y = y + places.transpose(1, 2).reshape(y.shape)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        return self.tail(self.blocks[2](self.up(torch.cat([y, first], 1)), time))


class Siamese(nn.Module):
    """A tracker that searches for one picture in another with a computed weight (Li et al., 2019)."""

    def __init__(self, size: int = 24) -> None:
        super().__init__()
        self.backbone = _backbone(16, size)
        self.score, self.box = nn.Conv2d(size, 2, 1), nn.Conv2d(size, 4, 1)

    def forward(
        self, template: torch.Tensor, search: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kernel, x = self.backbone(template), self.backbone(search)
        batch, size = x.shape[:2]
        x = x.reshape(1, batch * size, *x.shape[-2:])
        kernel = kernel.reshape(batch * size, 1, *kernel.shape[-2:])
        y = F.conv2d(x, kernel, groups=batch * size)
        y = y.reshape(batch, size, *y.shape[-2:])
        return self.score(y), self.box(y)
