"""Networks of scenes: depth, optical flow, and laser points."""

from __future__ import annotations

import torch
from architectures.parts import MLP, SelfAttention, conv_norm, stack
from torch import nn
from torch.nn import functional as F  # noqa: N812  its usual name

__all__ = ["Depth", "Flow", "PointPillars"]


class PointPillars(nn.Module):
    """Columns of points become features, which are scattered to their places (Lang et al., 2019).

    Points are [batch, pillars, points, values]; places are [batch, pillars], in a square of `extent` squared.
    """

    def __init__(self, size: int = 32, extent: int = 32) -> None:
        super().__init__()
        self.size, self.extent = size, extent
        self.point, self.norm = nn.Linear(9, size, bias=False), nn.BatchNorm2d(size)
        self.near, self.far = conv_norm(size, size, 3, 2), conv_norm(size, 2 * size, 3, 2)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(size, size, 1), nn.ConvTranspose2d(2 * size, size, 2, 2)]
        )
        self.classes, self.boxes = nn.Conv2d(2 * size, 3, 1), nn.Conv2d(2 * size, 14, 1)

    def forward(
        self, points: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm(self.point(points).permute(0, 3, 1, 2)).relu()
        pillars = y.amax(-1)
        canvas = torch.zeros_like(pillars[:, :, :1]).expand(-1, -1, self.extent**2)
        index = places.unsqueeze(1).expand(-1, self.size, -1)
        canvas = canvas.scatter(2, index, pillars)
        near = self.near(canvas.reshape(-1, self.size, self.extent, self.extent))
        far = self.far(near)
        y = torch.cat([up(one) for up, one in zip(self.up, (near, far))], 1)
        return self.classes(y), self.boxes(y)


class _ViTBlock(nn.Module):
    """Attention and an MLP, each scaled by a weight per channel, as in DINOv2."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(size), nn.LayerNorm(size)])
        self.attend, self.mlp = SelfAttention(size, 4, fused=True), MLP(size, 2 * size)
        self.scales = nn.Parameter(torch.rand(2, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.scales[0] * self.attend(self.norms[0](x))
        return x + self.scales[1] * self.mlp(self.norms[1](x))


class _Fusion(nn.Module):
    """Two residual units with activations first, then twice the extent."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ReLU(),
                    nn.Conv2d(size, size, 3, 1, 1),
                    nn.ReLU(),
                    nn.Conv2d(size, size, 3, 1, 1),
                )
                for _ in range(2)
            ]
        )

    def forward(self, x: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        if beside is not None:
            x = x + beside + self.units[0](beside)
        x = x + self.units[1](x)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class Depth(nn.Module):
    """A vision transformer with layers reassembled as pictures of several extents (Ranftl et al., 2021)."""

    def __init__(self, size: int = 64, narrow: int = 24, patch: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, size, patch, patch)
        self.first = nn.Parameter(torch.randn(1, 1, size))
        self.positions = nn.Parameter(torch.randn(1, 65, size))
        self.blocks = nn.ModuleList([stack(2, lambda: _ViTBlock(size)) for _ in range(2)])
        self.norm = nn.LayerNorm(size)
        self.project = nn.ModuleList([nn.Conv2d(size, narrow, 1) for _ in range(2)])
        self.resize = nn.ModuleList([nn.ConvTranspose2d(narrow, narrow, 2, 2), nn.Identity()])
        self.fuse = nn.ModuleList([_Fusion(narrow), _Fusion(narrow)])
        self.head = nn.Sequential(
            nn.Conv2d(narrow, narrow, 3, 1, 1), nn.ReLU(), nn.Conv2d(narrow, 1, 1), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        height, width = y.shape[-2:]
        first = self.first.expand(x.shape[0], -1, -1)
        y = torch.cat([first, y.flatten(2).transpose(1, 2)], 1) + self.positions
        levels = []
        for block, project, resize in zip(self.blocks, self.project, self.resize):
            y = block(y)
            places = self.norm(y)[:, 1:].transpose(1, 2).unflatten(2, (height, width))
            levels.append(resize(project(places)))
        y = self.fuse[0](levels[1], None)
        y = self.head(self.fuse[1](y, levels[0]))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=True)


class _ConvGRU(nn.Module):
    def __init__(self, size: int, num_in: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(size + num_in, 2 * size, 3, padding=1)
        self.new = nn.Conv2d(size + num_in, size, 3, padding=1)

    def forward(self, state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        keep, reset = self.gates(torch.cat([state, x], 1)).sigmoid().chunk(2, 1)
        new = self.new(torch.cat([reset * state, x], 1)).tanh()
        return (1 - keep) * state + keep * new


class Flow(nn.Module):
    """Correlation of all places of two pictures, looked up in each iteration (Teed and Deng, 2020)."""

    def __init__(self, size: int = 32, radius: int = 2, steps: int = 2) -> None:
        super().__init__()
        self.size, self.steps = size, steps
        self.backbone = nn.Sequential(conv_norm(3, 16, 3, 2), conv_norm(16, size, 3, 2))
        self.context = nn.Sequential(conv_norm(3, 16, 3, 2), nn.Conv2d(16, 2 * size, 3, 2, 1))
        around = torch.arange(-radius, radius + 1).float()
        rows, columns = torch.meshgrid(around, around, indexing="ij")
        self.register_buffer("window", torch.stack([columns, rows], -1))
        num = (2 * radius + 1) ** 2
        self.gru, self.move = _ConvGRU(size, size + num + 2), nn.Conv2d(size, 2, 3, padding=1)

    def forward(self, before: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
        first, second = self.backbone(before), self.backbone(behind)
        batch, _, height, width = first.shape
        every = first.flatten(2).transpose(1, 2) @ second.flatten(2) / self.size**0.5
        every = every.reshape(batch * height * width, 1, height, width)
        state, inner = self.context(before).chunk(2, 1)
        state, inner = state.tanh(), inner.relu()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        start = torch.stack([columns, rows]).float().to(first.device)[None]
        flow = torch.zeros_like(first[:, :2])
        extent = torch.tensor([width - 1, height - 1])
        for _ in range(self.steps):
            centers = (start + flow).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
            grid = 2 * (centers + self.window) / extent - 1
            seen = F.grid_sample(every, grid, align_corners=True)
            seen = seen.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
            state = self.gru(state, torch.cat([inner, seen, flow], 1))
            flow = flow + self.move(state)
        return 4 * F.interpolate(flow, scale_factor=4.0, mode="bilinear", align_corners=True)
