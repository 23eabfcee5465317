"""Train the network of this folder to bring sentences about one subject together; writes ``sentences.onnx``.

Needs the extra ``torch``; takes some minutes on two cores.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from sentences import LENGTH, WORDS, encode, sentence
from torch import nn

HERE = Path(__file__).parent
WIDTH, HEADS, STEPS, BATCH = 64, 4, 800, 48


class Block(nn.Module):
    """Attention followed by two layers, with the norms of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return ``[sentences, words, width]``; `bias` is far below 0 at padding."""
        shape = (-1, LENGTH, HEADS, WIDTH // HEADS)
        layers = (self.query, self.key, self.value)
        query, key, value = (layer(x).reshape(shape).transpose(1, 2) for layer in layers)
        shares = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS) + bias, -1)
        x = self.first(x + self.out((shares @ value).transpose(1, 2).reshape(-1, LENGTH, WIDTH)))
        return self.second(x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """The three inputs of a text network to embeddings of length one, ``[sentences, 64]``."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.kind = nn.Embedding(len(WORDS), WIDTH), nn.Embedding(2, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the embedding of each sentence."""
        mask = attention_mask.float()
        bias = (1 - mask)[:, None, None, :] * -1e4
        x = self.norm(self.word(input_ids) + self.kind(token_type_ids) + self.place)
        for block in self.blocks:
            x = block(x, bias)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return mean / mean.norm(dim=1, keepdim=True)


def pair(random: np.random.Generator) -> list[tuple[torch.Tensor, ...]]:
    """Return the inputs of two sentences about each of some subjects."""
    subjects = random.choice(144, BATCH, replace=False)
    texts = [[sentence(random, int(one)) for one in subjects] for _ in range(2)]
    return [tuple(map(torch.from_numpy, encode(one).values())) for one in texts]


def main() -> None:
    """Train, print the accuracy, write the file."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    for step in range(STEPS):
        one, other = (model(*inputs) for inputs in pair(random))
        loss = nn.functional.cross_entropy(10 * one @ other.T, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.eval()
    with torch.no_grad():
        one, other = (model(*inputs) for inputs in pair(np.random.default_rng(3)))
    right = ((one @ other.T).argmax(1) == torch.arange(BATCH)).float().mean().item()
    print(f"{100 * right:.0f} % of sentences are nearest to the one about the same subject")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones(1, LENGTH, dtype=torch.long) for _ in names)
    torch.onnx.export(
        model, example, HERE / "sentences.onnx", opset_version=17, dynamo=False,
        input_names=names, output_names=["embedding"],
        dynamic_axes={name: {0: "batch"} for name in (*names, "embedding")},
    )  # fmt: skip


if __name__ == "__main__":
    main()
