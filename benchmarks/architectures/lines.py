"""Networks of sequences: language, speech, sound, points, and rows of a table."""

from __future__ import annotations

import torch
from architectures.parts import SelfAttention, conv_norm, heads, joined, stack
from torch import nn
from torch.nn import functional as F  # noqa: N812  its usual name

__all__ = [
    "Cells",
    "Conformer",
    "Crnn",
    "Decoder",
    "Dlrm",
    "Mamba",
    "PointNet",
    "Recurrent",
    "Vocoder",
    "WaveNet",
]


class _RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class _DecoderLayer(nn.Module):
    """Rotary positions, keys and values shared by pairs of heads, and a gated MLP."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_shared, head = num_heads, num_heads // 2, size // num_heads
        self.norms = nn.ModuleList([_RMSNorm(size), _RMSNorm(size)])
        self.q = nn.Linear(size, size, bias=False)
        self.k, self.v = (nn.Linear(size, self.num_shared * head, bias=False) for _ in range(2))
        self.out = nn.Linear(size, size, bias=False)
        self.gate, self.up = (nn.Linear(size, 2 * size, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * size, size, bias=False)

    def forward(
        self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], *past: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.norms[0](x)
        q = _turned(heads(self.q(y), self.num_heads), *turns)
        k = _turned(heads(self.k(y), self.num_shared), *turns)
        k = torch.cat([past[0], k], 2)
        v = torch.cat([past[1], heads(self.v(y), self.num_shared)], 2)
        wide_k, wide_v = (one.repeat_interleave(2, dim=1) for one in (k, v))
        scores = (q @ wide_k.transpose(-2, -1)) * (q.shape[-1] ** -0.5)
        x = x + self.out(joined(scores.softmax(-1, dtype=torch.float32) @ wide_v))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), k, v


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Decoder(nn.Module):
    """One step of a language model like Llama: a token, its position, and the keys and values so far."""

    def __init__(self, size: int = 64, num_heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(100, size), size // num_heads
        self.layers = nn.ModuleList([_DecoderLayer(size, num_heads) for _ in range(2)])
        self.norm, self.logits = _RMSNorm(size), nn.Linear(size, 100, bias=False)

    def forward(
        self, token: torch.Tensor, position: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rates = 10000.0 ** (-torch.arange(0, self.head, 2) / self.head)
        angles = position[:, None, :, None].float() * rates
        angles = torch.cat([angles, angles], -1)
        turns = angles.cos(), angles.sin()
        x, now = self.tokens(token), []
        for number, layer in enumerate(self.layers):
            x, k, v = layer(x, turns, past[2 * number], past[2 * number + 1])
            now += [k, v]
        return self.logits(self.norm(x)), *now


class _ConvModule(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.widen = nn.LayerNorm(size), nn.Conv1d(size, 2 * size, 1)
        self.depthwise = nn.Conv1d(size, size, 15, padding=7, groups=size)
        self.batch_norm, self.narrow = nn.BatchNorm1d(size), nn.Conv1d(size, size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.glu(self.widen(self.norm(x).transpose(1, 2)), dim=1)
        return self.narrow(F.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)


class _ConformerBlock(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.before, self.behind = self._half(size), self._half(size)
        self.norm, self.attend = nn.LayerNorm(size), SelfAttention(size, 4)
        self.conv, self.last = _ConvModule(size), nn.LayerNorm(size)

    @staticmethod
    def _half(size: int) -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.SiLU(), nn.Linear(4 * size, size)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.attend(self.norm(x))
        x = x + self.conv(x)
        return self.last(x + 0.5 * self.behind(x))


class Conformer(nn.Module):
    """Speech: spectra with fewer frames, attention and convolutions in turn (Gulati et al., 2020)."""

    def __init__(self, size: int = 48) -> None:
        super().__init__()
        self.fewer = nn.Sequential(conv_norm(1, 16, 3, 2), conv_norm(16, 16, 3, 2))
        self.embed, self.blocks = nn.Linear(16 * 8, size), stack(2, lambda: _ConformerBlock(size))
        self.head = nn.Linear(size, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fewer(x.unsqueeze(1)).transpose(1, 2).flatten(2)
        return self.head(self.blocks(self.embed(y))).log_softmax(-1)


class Recurrent(nn.Module):
    """Two layers of PyTorch's own GRU or LSTM, in both directions."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.body, self.head = (
            kind(16, 32, 2, batch_first=True, bidirectional=True),
            nn.Linear(64, 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0])


class Cells(nn.Module):
    """The cell of a GRU or an LSTM, written out for each of eight steps."""

    def __init__(self, kind: type[nn.GRUCell | nn.LSTMCell]) -> None:
        super().__init__()
        self.gates, self.size = (3 if kind is nn.GRUCell else 4), 32
        self.given, self.kept = (nn.Linear(num, self.gates * self.size) for num in (16, self.size))
        self.head = nn.Linear(self.size, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], self.size)
        cell, states = state, []
        for step in x.unbind(1):
            given, kept = (
                self.given(step).chunk(self.gates, -1),
                self.kept(state).chunk(self.gates, -1),
            )
            if self.gates == 3:
                reset, update = ((a + b).sigmoid() for a, b in zip(given[:2], kept[:2]))
                new = (given[2] + reset * kept[2]).tanh()
                state = (1 - update) * new + update * state
            else:
                enter, forget, new, leave = (a + b for a, b in zip(given, kept))
                cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
                state = leave.sigmoid() * cell.tanh()
            states.append(state)
        return self.head(torch.stack(states, 1))


class Crnn(nn.Module):
    """Text in a line of a picture: convolutions, then an LSTM along the line (Shi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(1, 16), nn.MaxPool2d(2), conv_norm(16, 32), nn.MaxPool2d((2, 1)),
            conv_norm(32, 48), nn.MaxPool2d((8, 1)),
        )  # fmt: skip
        self.line, self.head = nn.LSTM(48, 32, bidirectional=True), nn.Linear(64, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x).squeeze(2).permute(2, 0, 1)
        return self.head(self.line(y)[0]).log_softmax(-1)


class _Dilated(nn.Module):
    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv1d(size, size, width, padding=width // 2 * d, dilation=d) for d in (1, 3, 5)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class Vocoder(nn.Module):
    """Sound from spectra: transposed convolutions and dilated ones beside each other (Kong et al., 2020)."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.head = norm(nn.Conv1d(20, size, 7, padding=3))
        self.up = nn.ModuleList(
            [
                norm(nn.ConvTranspose1d(size, size // 2, 8, 4, 2)),
                norm(nn.ConvTranspose1d(size // 2, size // 4, 4, 2, 1)),
            ]
        )
        self.blocks = nn.ModuleList(
            [
                nn.ModuleList([_Dilated(num, width) for width in (3, 7)])
                for num in (size // 2, size // 4)
            ]
        )
        self.tail = norm(nn.Conv1d(size // 4, 1, 7, padding=3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        for up, blocks in zip(self.up, self.blocks):
            x = up(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in blocks) / len(blocks)
        return self.tail(F.leaky_relu(x)).tanh()


class WaveNet(nn.Module):
    """Gated causal convolutions with skip connections (van den Oord et al., 2016)."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.head = nn.Conv1d(4, size, 1)
        self.gated = nn.ModuleList([nn.Conv1d(size, 2 * size, 2, dilation=2**d) for d in range(4)])
        self.out = nn.ModuleList([nn.Conv1d(size, 2 * size, 1) for _ in range(4)])
        self.tail = nn.Sequential(nn.ReLU(), nn.Conv1d(size, 16, 1), nn.ReLU(), nn.Conv1d(16, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, skipped = self.head(x), 0
        for number, (gated, out) in enumerate(zip(self.gated, self.out)):
            signal, gate = gated(F.pad(x, (2**number, 0))).chunk(2, 1)
            left, right = out(signal.tanh() * gate.sigmoid()).chunk(2, 1)
            x, skipped = x + left, skipped + right
        return self.tail(skipped)


class PointNet(nn.Module):
    """Point clouds: rotated by a computed matrix, then the maximum of each feature (Qi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.matrix = self._features(3, 32), nn.Linear(32, 9)
        self.body, self.head = self._features(3, 64), nn.Linear(64, 10)

    @staticmethod
    def _features(num_in: int, num_out: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Conv1d(num_in, 32, 1), nn.BatchNorm1d(32), nn.ReLU()),
            *(nn.Conv1d(32, num_out, 1), nn.BatchNorm1d(num_out), nn.ReLU()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix = self.matrix(self.turn(x).amax(2)).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(1, 2), matrix).transpose(1, 2)
        return self.head(self.body(x).amax(2))


class Dlrm(nn.Module):
    """A recommender: tables of embeddings, and the products of all pairs of them (Naumov et al., 2019)."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(50, size) for _ in range(4)])
        self.bottom = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, size), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(size + 10, 32), nn.ReLU(), nn.Linear(32, 1))
        self.register_buffer("rows", torch.tril_indices(5, 5, -1)[0])
        self.register_buffer("columns", torch.tril_indices(5, 5, -1)[1])

    def forward(self, numbers: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        dense = self.bottom(numbers)
        rows = [dense, *(table(kinds[:, n]) for n, table in enumerate(self.tables))]
        vectors = torch.stack(rows, 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.rows, self.columns]
        return self.top(torch.cat([dense, products], 1)).sigmoid()


class _Scan(nn.Module):
    """A state updated position by position, by each position's own values (Gu and Dao, 2023)."""

    def __init__(self, size: int, inner: int, num_states: int = 8) -> None:
        super().__init__()
        self.inner, self.num_states = inner, num_states
        self.widen, self.narrow = nn.Linear(size, 2 * inner), nn.Linear(inner, size)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.select, self.step = nn.Linear(inner, 4 + 2 * num_states), nn.Linear(4, inner)
        self.rates = nn.Parameter(torch.arange(1, num_states + 1).float().log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, gate = self.widen(x).chunk(2, -1)
        y = F.silu(self.conv(y.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        low, into, out = self.select(y).split([4, self.num_states, self.num_states], -1)
        step = F.softplus(self.step(low)).unsqueeze(-1)
        fading = torch.exp(step * -self.rates.exp())
        given = step * into.unsqueeze(2) * y.unsqueeze(-1)
        state, seen = torch.zeros_like(given[:, 0]), []
        for position in range(x.shape[1]):
            state = fading[:, position] * state + given[:, position]
            seen.append((state @ out[:, position].unsqueeze(-1)).squeeze(-1))
        return self.narrow((torch.stack(seen, 1) + self.skip * y) * F.silu(gate))


class Mamba(nn.Module):
    """A language model of selective state spaces, without attention."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(100, size)
        self.blocks = nn.ModuleList([_Scan(size, 2 * size) for _ in range(2)])
        self.norms = nn.ModuleList([_RMSNorm(size) for _ in range(3)])

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.tokens(words)
        for block, norm in zip(self.blocks, self.norms):
            x = x + block(norm(x))
        return self.norms[2](x) @ self.tokens.weight.T
