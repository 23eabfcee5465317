"""A layer's inputs are the same whether the module runs again or earlier outputs are replayed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from trtbuild.pytorch.prune.replay import Replay  # noqa: E402


class Writes(nn.Module):
    """A residual block that modifies its input in place, before the input is added to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x.relu_()))
        y += x
        return y


class Leaves(nn.Module):
    """Stores its input as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(6, 6), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.mean(0, keepdim=True)
        return self.layer(x)


class Collects(nn.Module):
    """Stores its input in a dict, its own or a given one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(6, 6), dict[str, torch.Tensor]()

    def forward(self, x: torch.Tensor, into: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        into = self.seen if into is None else into
        into.clear()
        into["mean"] = x.mean(0, keepdim=True)
        return self.layer(x)


class Cache:
    """Stores inputs, like caches of keys and values."""

    def __init__(self) -> None:
        self.layers: list[torch.Tensor] = []


class Caches(nn.Module):
    """Stores its input in an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.cache = nn.Linear(6, 6), Cache()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cache.layers = [x.mean(0, keepdim=True)]
        return self.layer(x)


class Odd(nn.Module):
    """Blocks that write in place, one that is called twice, some that store inputs, outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.twice, self.leaves = Writes(), nn.Linear(6, 6), Leaves()
        self.act, self.pair = nn.ReLU(inplace=True), nn.ModuleDict({"a": Writes(), "b": Writes()})
        self.keeps, self.fills, self.last = Collects(), Collects(), nn.Linear(6, 3)
        self.caches = Caches()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.twice(self.block(x.clone()))
        y = self.leaves(self.twice(x))
        z = self.act(x)  # writes into x
        y = y + x + z + self.leaves.seen
        given = {"mean": y}
        y = self.fills(self.keeps(y), given) + self.keeps.seen["mean"] + given["mean"]
        y = self.caches(y) + self.caches.cache.layers[0]
        both = [self.pair["a"](y.clone()), self.pair["b"](y)]
        return {"scores": self.last(torch.cat(both[:1]) + both[1])}


ORDER = (
    "block.first", "block.second", "leaves.layer", "keeps.layer", "fills.layer", "caches.layer",
    "pair.a.first", "pair.a.second", "pair.b.first", "pair.b.second", "last",
)  # fmt: skip


@pytest.mark.parametrize("limit", [1 << 20, 300, 0])
def test_layers_read_what_they_would_read_without_it(limit: int) -> None:
    torch.manual_seed(0)
    module = Odd().eval()
    batches = [torch.randn(4, 6), torch.randn(2, 6)]
    replay = Replay(module, limit)
    calls: list[Any] = []
    for one in (module.block, module.block.first):
        one.register_forward_hook(lambda *_: calls.append(None))
    with torch.no_grad():
        for path in ORDER:
            layer = module.get_submodule(path)
            for number, batch in enumerate(batches):
                read: list[torch.Tensor] = []
                other = copy.deepcopy(module)  # its stored inputs must not help
                other.get_submodule(path).register_forward_pre_hook(
                    lambda _, given, read=read: read.append(given[0].clone())
                )
                other(batch)
                found = replay.read(path, number, lambda batch=batch: module(batch))
                assert found.equal(read[0]), path
            layer.weight.mul_(1.5)  # as after new weights
    assert "forward" not in vars(module.block)


def test_what_is_known_is_not_computed_anew() -> None:
    module = nn.Sequential(
        nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 6), nn.Linear(6, 6)
    )
    ran: list[str] = []
    plain = module[0][0].forward

    def counted(x: torch.Tensor) -> torch.Tensor:
        ran.append("first")
        return plain(x)

    module[0][0].forward = counted
    replay = Replay(module)
    with torch.no_grad():
        for path in ("1", "2", "2"):
            replay.read(path, 0, lambda: module(torch.ones(2, 6)))
    assert ran == ["first"]
    assert module[0][0].forward is counted
