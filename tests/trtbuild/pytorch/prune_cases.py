"""Small networks that channel pruning must handle, and those on which it is known to fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

from tests.trtbuild.pytorch.fold_cases import Net

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CASES",
    "PruneCase",
    "Transformer",
    "chain",
    "data_branch",
    "inception",
    "residual",
]


@dataclass(frozen=True)
class PruneCase:
    """A network and the expected result of pruning by half.

    `halved` are layers that must lose half of their channels, `kept` maps layers that must not to a
    part of the reason. Pruning itself compares values, and the test again.
    """

    name: str
    build: Callable[[], nn.Module]
    dims: tuple[int, ...] = (2, 3, 16, 16)
    dtype: str = "float32"
    halved: tuple[str, ...] = ()
    kept: dict[str, str] = field(default_factory=dict)
    inexact: bool = False
    round_to: int = 2


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Module:
    """A convolution, its norm and a ReLU."""
    options = {"padding": size // 2, **options}
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, **options), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def head(inputs: int, outputs: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def chain() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 32), head(32))


def frozen() -> nn.Module:
    module = chain()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = conv(inputs, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.project = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.b(self.a(x)) + self.project(x))


def residual() -> nn.Module:
    return nn.Sequential(conv(3, 16), Residual(16, 16), Residual(16, 32), head(32))


def inception() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        return m.head(m.after(torch.cat([m.a(x), m.b(x), m.c(x)], 1)))

    return Net(forward, stem=conv(3, 16), a=conv(16, 8, 1), b=conv(16, 16), c=conv(16, 24, 5),
               after=conv(48, 16), head=head(16))  # fmt: skip


def depthwise() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 16, groups=16), conv(16, 32, 1), head(32))


def squeeze_excite() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        gate = torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return m.head(m.after(x * gate))

    return Net(forward, stem=conv(3, 16), down=nn.Conv2d(16, 8, 1), up=nn.Conv2d(8, 16, 1),
               after=conv(16, 16), head=head(16))  # fmt: skip


def flatten_linear() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, stride=2), conv(8, 16, stride=2), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip


def unet() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        high = m.down1(x)
        low = m.down2(F.max_pool2d(high, 2))
        return m.out(m.join(torch.cat([m.up(low), high], 1)))

    return Net(forward, down1=conv(3, 16), down2=conv(16, 32), up=nn.ConvTranspose2d(32, 16, 2, 2),
               join=conv(32, 16), out=nn.Conv2d(16, 4, 1))  # fmt: skip


def shared_conv() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        return m.head(m.shared(m.shared(x)))

    return Net(forward, stem=conv(3, 16), shared=nn.Conv2d(16, 16, 3, padding=1), head=head(16))


def prelu_instance_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.InstanceNorm2d(16, affine=True),
        nn.PReLU(16),
        conv(16, 16),
        head(16),
    )


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv(3, 16), nn.Conv2d(16, 16, 3, padding=1), head(16)
        self.scale = nn.Parameter(torch.rand(16, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.inner(x) * self.scale)


def grouped() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 32, groups=4), conv(32, 16), head(16))


def embedding() -> nn.Module:
    def forward(m: Any, ids: torch.Tensor) -> torch.Tensor:
        return m.out(F.relu(m.hidden(m.table(ids).mean(1))))

    return Net(forward, table=nn.Embedding(30, 16), hidden=nn.Linear(16, 32), out=nn.Linear(32, 5))


def group_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), conv(16, 16), head(16)
    )


class Attention(nn.Module):
    """Attention with packed query, key and value, and its own number of heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = (
            self.qkv(x).reshape(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, length, -1))


class Encoder(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, 32) * 0.1)
        self.blocks = nn.Sequential(Encoder(32, 4), Encoder(32, 4))
        self.norm, self.out = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.out(self.norm(self.blocks(tokens)).mean(1))


def fixed_split() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = torch.split(m.stem(x), 8, 1)
        return m.head(m.after(a * 2 + b))

    return Net(forward, stem=conv(3, 16), after=conv(8, 16), head=head(16))


def fixed_slice() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(m.after(m.stem(x)[:, 4:12]))

    return Net(forward, stem=conv(3, 16), after=conv(8, 16), head=head(16))


def stored_view() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(m.after(m.stem(x).view(x.shape[0], 16, 16, 16)))

    return Net(forward, stem=conv(3, 16), after=conv(16, 16), head=head(16))


def shuffle(live: bool) -> Callable[[], nn.Module]:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2 if live else 8, h, w).transpose(1, 2).reshape(n, -1, h, w)
        return m.head(m.after(x))

    def build() -> nn.Module:
        return Net(forward, stem=conv(3, 16), after=conv(16, 16), head=head(16))

    return build


def shuffle_units() -> nn.Module:
    """Two units of ShuffleNet V2: one half passes through a branch, then both are joined and shuffled."""

    def unit(branch: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        x = torch.cat((a, branch(b)), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(m.after(unit(m.two, unit(m.one, m.stem(x)))))

    def branch() -> nn.Module:
        return nn.Sequential(conv(8, 8, 1), conv(8, 8, groups=8), conv(8, 8, 1))

    return Net(
        forward, stem=conv(3, 16), one=branch(), two=branch(), after=conv(16, 16), head=head(16)
    )


def channel_buffer() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(m.after(m.stem(x) * m.gain))

    net = Net(forward, stem=conv(3, 16), after=conv(16, 16), head=head(16))
    net.register_buffer("gain", torch.rand(16, 1, 1) + 0.5)
    return net


class FrozenBatchNorm(nn.Module):
    """A batch norm that is not trained, as in detectors: all four vectors are buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


def frozen_norms() -> nn.Module:
    first = nn.Conv2d(3, 16, 3, padding=1, bias=False), FrozenBatchNorm(16), nn.ReLU()
    return nn.Sequential(*first, conv(16, 16), head(16))


def one_for_all() -> nn.Module:
    """One map that weights all channels, and one that is added to all."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        x = m.after(x * m.where(x).sigmoid())
        return m.head(m.one(x).expand(-1, x.shape[1], -1, -1) + x)

    return Net(
        forward, stem=conv(3, 16), where=nn.Conv2d(16, 1, 7, padding=3), after=conv(16, 16),
        one=nn.Conv2d(16, 1, 1), head=head(16),
    )  # fmt: skip


class RawWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after, self.head = conv(3, 16), conv(16, 16), head(16)
        self.kernel = nn.Parameter(torch.randn(16, 16, 3, 3) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.after(F.conv2d(self.stem(x), self.kernel, padding=1)))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 16), head(16))


def channel_mean() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        return m.head(m.after(x)) + x.mean((1, 2, 3), keepdim=True).flatten(1)

    return Net(forward, stem=conv(3, 16), after=conv(16, 16), head=head(16))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm = nn.Linear(12, 16), nn.LSTM(16, 16, batch_first=True)
        self.hidden, self.out = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(F.relu(self.first(x)))
        return self.out(F.relu(self.hidden(y[:, -1])))


class SelfAttention(nn.Module):
    """torch's own attention module between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attn = nn.Linear(12, 24), nn.MultiheadAttention(24, 3, batch_first=True)
        self.hidden, self.out = nn.Linear(24, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.out(F.relu(self.hidden(self.attn(x, x, x)[0].mean(1))))


def masked() -> nn.Module:
    module = chain()
    torch.nn.utils.prune.l1_unstructured(module[0][0], "weight", 0.3)
    torch.nn.utils.parametrizations.weight_norm(module[1][0])
    return module


def data_branch() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        return m.head(m.a(x) if x.mean() > 0 else m.b(x))

    return Net(forward, stem=conv(3, 16), a=conv(16, 16), b=conv(16, 16), head=head(16))


def two_outputs() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = m.body(m.stem(x))
        return {"boxes": m.boxes(x), "scores": m.scores(x).softmax(1)}

    return Net(forward, stem=conv(3, 16), body=conv(16, 16), boxes=nn.Conv2d(16, 4, 1),
               scores=nn.Conv2d(16, 6, 1))  # fmt: skip


class C2f(nn.Module):
    """YOLOv8's block: a convolution in two pieces; the second is processed further and also used again."""

    def __init__(self, cut: Callable[[C2f, torch.Tensor], Any]) -> None:
        super().__init__()
        self.c, self.cut = 8, cut
        self.cv1, self.cv2 = conv(16, 16, 1), conv(32, 16, 1)
        self.m = nn.ModuleList([Residual(8, 8), Residual(8, 8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = list(self.cut(self, self.cv1(x)))
        y.extend(block(y[-1]) for block in self.m)
        return self.cv2(torch.cat(y, 1))


def c2f(cut: Callable[[C2f, torch.Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(conv(3, 16), C2f(cut), head(16))


C2F = {
    "chunk": lambda m, x: x.chunk(2, 1),
    "split by a stored size": lambda m, x: x.split((m.c, m.c), 1),
    "slices at a stored size": lambda m, x: (x[:, : m.c], x[:, m.c :]),
    "slices at a live size": lambda m, x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
}


def gate() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        values, gates = m.both(m.stem(x)).chunk(2, 1)
        return m.head(m.after(values * torch.sigmoid(gates)))

    return Net(forward, stem=conv(3, 16), both=conv(16, 32), after=conv(16, 16), head=head(16))


def gated_linear() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        values, gates = m.both(m.first(x)).chunk(2, -1)
        return m.out(m.back(F.silu(gates) * values))

    return Net(forward, first=nn.Linear(12, 16), both=nn.Linear(16, 48), back=nn.Linear(24, 16),
               out=nn.Linear(16, 5))  # fmt: skip


def coordinates() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        rows = torch.linspace(-1, 1, y.shape[2], dtype=y.dtype).view(1, 1, -1, 1)
        return m.head(m.after(torch.cat([rows.expand_as(y[:, :1]), y], 1)))

    return Net(forward, stem=conv(3, 16), after=conv(17, 16), head=head(16))


def sizes_of_readers() -> nn.Module:
    """A split with the sizes of the layers that read it; one piece is concatenated, one added."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        side, x = m.side(x), m.both(x)
        first = m.after[0].in_channels - m.side[1].num_features
        a, b = torch.split(x, (first, m.both[1].num_features - first), 1)
        return m.head(m.after(torch.cat([a, side], 1)) + b)

    return Net(forward, both=conv(3, 32), side=conv(3, 16), after=conv(32, 16), head=head(16))


def rows_joined() -> nn.Module:
    """A concatenation and a split along the height, which equals the number of channels."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = m.a(x), m.b(x)
        upper, _ = torch.split(m.c(torch.cat([a, b], 2)), [a.shape[2], b.shape[2]], 2)
        return m.head(m.d(upper))

    return Net(forward, a=conv(3, 16), b=conv(3, 16), c=conv(16, 16), d=conv(16, 16), head=head(16))


def cascade() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([torch.cat([m.a(x), m.b(x)], 1), m.c(x)], 1)
        return m.head(m.out(torch.cat([y, m.d(x)], 1)))

    return Net(forward, a=conv(3, 8), b=conv(3, 16), c=conv(3, 24), d=conv(3, 48), out=conv(96, 16),
               head=head(16))  # fmt: skip


class OwnLayer(nn.Module):
    """A scale and a shift for each channel, a linear layer, and an unused parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = (
            nn.Parameter(torch.rand(width) + 0.5),
            nn.Parameter(torch.rand(width)),
        )
        self.linear, self.unused = nn.Linear(width, width), nn.Parameter(torch.rand(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x * self.scale + self.shift)


def own_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), OwnLayer(16), nn.Linear(16, 5))


def linear_chain() -> nn.Module:
    first = (
        nn.Linear(12, 16),
        nn.ReLU(),
        nn.Linear(16, 24, bias=False),
        nn.BatchNorm1d(24),
        nn.PReLU(24),
    )
    return nn.Sequential(*first, nn.Linear(24, 8), nn.Dropout(), nn.Linear(8, 3))


def one_channel_out() -> nn.Module:
    return nn.Sequential(
        conv(3, 16), conv(16, 32), nn.Conv2d(32, 1, 3), nn.BatchNorm2d(1), nn.ReLU()
    )


class Conv1D(nn.Module):
    """GPT-2's linear layer, whose weight is ``[in, out]``."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.1)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(*x.shape[:-1], self.nf)


class GPT2Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.split_size = heads, dim // heads, dim
        self.c_attn, self.c_proj = Conv1D(3 * dim, dim), Conv1D(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        parts = self.c_attn(x).split(self.split_size, dim=2)
        q, k, v = (p.view(n, length, self.num_heads, self.head_dim).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(n, length, self.split_size))


class GPT2Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = (
            nn.LayerNorm(dim),
            GPT2Attention(dim, heads),
            nn.LayerNorm(dim),
        )
        self.c_fc, self.c_proj = Conv1D(4 * dim, dim), Conv1D(dim, 4 * dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class GPT2(nn.Module):
    """Two blocks; the head shares its weight with the token embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(30, 32), nn.Embedding(8, 32)
        self.h = nn.Sequential(GPT2Block(32, 4), GPT2Block(32, 4))
        self.ln_f, self.lm_head = nn.LayerNorm(32), nn.Linear(32, 30, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        return self.lm_head(self.ln_f(self.h(x)))


_OUT = "network's output"

CASES = [
    PruneCase("chain", chain, halved=("0.0", "1.0"), kept={"2.2": _OUT}),
    PruneCase("frozen parameters", frozen, halved=("0.0", "1.0"), kept={"2.2": _OUT}),
    PruneCase("residual", residual, halved=("0.0", "1.a.0", "1.b", "2.project", "2.b")),
    PruneCase("concat", inception, halved=("stem.0", "a.0", "b.0", "c.0", "after.0")),
    PruneCase("depthwise", depthwise, halved=("0.0", "1.0", "2.0")),
    PruneCase("squeeze and excite", squeeze_excite, halved=("stem.0", "down", "up", "after.0")),
    PruneCase("flatten, linear", flatten_linear, halved=("0.0", "1.0", "3"), kept={"5": _OUT}),
    PruneCase("U-Net", unet, halved=("down1.0", "down2.0", "up", "join.0"), kept={"out": _OUT}),
    PruneCase("shared conv", shared_conv, halved=("stem.0", "shared")),
    PruneCase("PReLU and InstanceNorm", prelu_instance_norm, halved=("0", "3.0")),
    PruneCase("raw parameter in the path", LayerScale, halved=("stem.0", "inner")),
    PruneCase("grouped conv", grouped, halved=("0.0", "1.0", "2.0")),
    PruneCase("embedding", embedding, (2, 7), "int64", halved=("hidden",), kept={"out": _OUT}),
    PruneCase("GroupNorm", group_norm, halved=("0", "3.0"), inexact=True),
    PruneCase("transformer", Transformer, halved=("blocks.0.attn.qkv", "blocks.0.mlp.0"),
              kept={"out": _OUT}, inexact=True),
    PruneCase("multi-head attention module", SelfAttention, (2, 9, 12), halved=("hidden",),
              kept={"out": _OUT}, inexact=True, round_to=6),
    PruneCase("two outputs", two_outputs, halved=("stem.0", "body.0"),
              kept={"boxes": _OUT, "scores": _OUT}),
    PruneCase("masks and weight norm", masked, halved=("0.0", "1.0")),
    PruneCase("split by a fixed size", fixed_split, halved=("after.0",), kept={"stem.0": ""}),
    PruneCase("slice by fixed numbers", fixed_slice, halved=("after.0",), kept={"stem.0": ""}),
    PruneCase("view with a stored size", stored_view, halved=("after.0",),
              kept={"stem.0": "does not run without them"}),
    PruneCase("channel shuffle, stored sizes", shuffle(live=False), halved=("after.0",), kept={"stem.0": ""}),
    PruneCase("channel shuffle, live sizes", shuffle(live=True), halved=("after.0",),
              kept={"stem.0": "computes something else"}),
    PruneCase("ShuffleNet units", shuffle_units, halved=("after.0", "one.0.0", "two.0.0")),
    PruneCase("channel-wise buffer", channel_buffer, halved=("stem.0", "after.0")),
    PruneCase("frozen norm in buffers", frozen_norms, halved=("0", "3.0")),
    PruneCase("one map for all channels", one_for_all, halved=("stem.0", "after.0")),
    PruneCase("functional conv with a raw weight", RawWeight, halved=("after.0",),
              kept={"stem.0": "raw parameter 'kernel'"}),
    PruneCase("pixel shuffle", pixel_shuffle, halved=("2.0",), kept={"0.0": ""}),
    PruneCase("mean over channels", channel_mean, halved=("after.0",),
              kept={"stem.0": ""}),
    *(PruneCase(f"C2f, {name}", c2f(cut), halved=("0.0", "1.cv1.0", "1.cv2.0", "1.m.0.a.0", "1.m.1.b"))
      for name, cut in C2F.items()),
    PruneCase("two halves as a gate", gate, halved=("stem.0", "both.0", "after.0")),
    PruneCase("gated linear", gated_linear, (2, 7, 12), halved=("both", "back"), kept={"out": _OUT}),
    PruneCase("concat with what no layer gives", coordinates, halved=("stem.0", "after.0")),
    PruneCase("split by the readers' sizes", sizes_of_readers, halved=("both.0", "side.0", "after.0")),
    PruneCase("concat and split of rows", rows_joined, halved=("a.0", "b.0", "c.0", "d.0")),
    PruneCase("concats of concats", cascade, halved=("a.0", "b.0", "c.0", "d.0", "out.0")),
    PruneCase("scale and shift of its own", own_layer, (2, 12), halved=("0", "2.linear"), kept={"3": _OUT}),
    PruneCase("linear layers alone", linear_chain, (2, 12), halved=("0", "2", "5"), kept={"7": _OUT}),
    PruneCase("one channel comes out", one_channel_out, halved=("0.0", "1.0"), kept={"2": _OUT}),
    PruneCase("GPT-2: Conv1D and a tied head", GPT2, (2, 7), "int64", kept={"lm_head": _OUT}, inexact=True,
              halved=("h.0.attn.c_attn", "h.0.attn.c_proj", "h.1.c_fc", "h.1.c_proj")),
    PruneCase("LSTM", Recurrent, (2, 6, 12), halved=("hidden",), kept={"first": "recurrent layer"}),
]  # fmt: skip
