"""Channels that the user names, or that are zero, are removed; penalties weaken channels before."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from torch import nn  # noqa: E402
from torch.nn.utils import prune as masks  # noqa: E402

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from tests.trtbuild.pytorch.prune_cases import (  # noqa: E402
    C2F,
    Transformer,
    c2f,
    chain,
    grouped,
    residual,
)
from trtbuild.errors import DataError, ModelError, OptionError  # noqa: E402
from trtbuild.pytorch import InputSpec  # noqa: E402
from trtbuild.pytorch.prune import (  # noqa: E402
    channel_weights,
    group_lasso,
    growing_penalty,
    growing_strength,
    load_pruned,
    norm_scale_penalty,
    prune_channels,
    prune_indices,
    restore_outputs,
    save_pruned,
    weakest_channels,
    zero_channels,
)
from trtbuild.pytorch.spec import PruneSpec  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = [InputSpec((2, 3, 16, 16))]


def build(make: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomize(make())


def widths(result: Any) -> dict[str, int]:
    return {width.path: width.after for width in result.report.widths}


def test_exactly_the_named_channels_go_with_what_is_coupled() -> None:
    module = build(residual)
    named = {"0.0": [0, 5], "1.b": [5, 7], "2.b": [1, 30]}  # the first two are in one sum
    result = prune_indices(module, IMAGE, named)
    found = widths(result)
    assert (found["0.0"], found["1.b"], found["1.a.0"]) == (13, 13, 16)
    assert found["2.b"] == found["2.project"] == 30
    kept = [i for i in range(16) if i not in (0, 5, 7)]
    torch.testing.assert_close(
        result.module[0][0].weight, module[0][0].weight[kept], rtol=0, atol=0
    )
    # With zeros in the removed channels, their readers compute the same sums in float64.
    zeroed = build(residual).double()
    with torch.no_grad():
        for reader in (zeroed[1].a[0], zeroed[2].a[0], zeroed[2].project):
            reader.weight[:, [0, 5, 7]] = 0
        zeroed[3][2].weight[:, [1, 30]] = 0
        sample = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        wanted = zeroed(sample)
        difference = (result.module.double()(sample) - wanted).abs().max()
    assert difference <= 1e-12 * wanted.abs().max()


def test_named_channels_are_saved_and_loaded(tmp_path: Path) -> None:
    result = prune_indices(build(c2f_split), IMAGE, {"1.cv1.0": [2, 10]})
    assert result.module[1].c == 7
    save_pruned(result.module, result.history, tmp_path)
    loaded = load_pruned(c2f_split().eval(), tmp_path)
    sample = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sample), result.module(sample), rtol=0, atol=0)


def c2f_split() -> nn.Module:
    return c2f(C2F["split by a stored size"])()


@pytest.mark.parametrize(
    ("channels", "error", "told"),
    [
        ({"0.0": [16]}, OptionError, r"'0\.0' has 16 output channels; there is no channel 16"),
        ({"0.o": [1]}, OptionError, "'0.o' is not a convolution or linear layer"),
        ({"0.0": list(range(16))}, OptionError, "would lose all"),
        ({"0.0": [True] * 16}, OptionError, "are a list of indices"),
        ({"0.0": 3}, OptionError, "are a list of indices"),
        ({"3.2": [1]}, ModelError, "an output would change its shape"),
    ],
)
def test_channels_that_cannot_go(channels: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        prune_indices(build(residual), IMAGE, channels)


def test_numbers_may_be_a_tensor() -> None:
    gone = torch.tensor([3, 7])
    assert widths(prune_indices(build(chain), IMAGE, {"0.0": gone}))["0.0"] == 14


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot go"):
        prune_indices(build(c2f_split), IMAGE, {"1.cv1.0": [2]})
    with pytest.raises(ModelError, match="cannot go"):
        prune_indices(build(grouped), IMAGE, {"1.0": [3]})


def test_whole_heads_can_be_named_and_are_counted() -> None:
    module = build(Transformer)
    first = [part + channel for part in (0, 32, 64) for channel in range(8)]
    result = prune_indices(module, IMAGE, {"blocks.0.attn.qkv": first})
    small = result.module.blocks[0].attn
    assert (small.num_heads, small.head_dim, small.proj.weight.shape[1]) == (3, 8, 24)
    assert not result.report.inexact
    silent = copy.deepcopy(module).double()
    silent.blocks[0].attn.proj.weight.data[:, :8] = 0
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        wanted, found = silent(x), copy.deepcopy(result.module).double()(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))

    narrow = prune_indices(module, IMAGE, {"blocks.1.attn.qkv": list(range(3, 96, 8))})
    assert vars(narrow.module.blocks[1].attn)["head_dim"] == 7
    assert narrow.report.inexact  # heads of another width weigh anew


class ThreeLayers(nn.Module):
    """Attention with a layer each for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.out_proj = 4, nn.Linear(16, 12)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(12, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = self.q_proj, self.k_proj, self.v_proj
        heads = [layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in layers]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def test_part_of_a_head_is_refused() -> None:
    with pytest.raises(OptionError, match="belong to 4 heads"):
        prune_indices(build(ThreeLayers), [InputSpec((2, 5, 12))], {"q_proj": [0, 1]})


def test_structured_masks_become_removals() -> None:
    module = build(chain)
    masks.ln_structured(module[0][0], "weight", 0.25, n=2, dim=0)
    masks.ln_structured(module[1][0], "weight", 8, n=1, dim=0)
    dead = {
        path: (module.get_submodule(path).weight.flatten(1) == 0).all(1) for path in ("0.0", "1.0")
    }
    found = zero_channels(module, IMAGE)
    assert {path: torch.tensor(found[path]).tolist() for path in found} == {
        path: where.nonzero().flatten().tolist() for path, where in dead.items()
    }
    result = prune_channels(module, IMAGE, PruneSpec(0.0, masked=True))
    assert widths(result) == {"0.0": 12, "1.0": 24, "2.2": 10}
    assert "their biases and the shifts of their norms were not" in result.report.notes[0]


def test_channels_that_are_zero_throughout_change_nothing_and_the_rest_is_ranked() -> None:
    module = build(chain).double()
    with torch.no_grad():
        for tensor in (
            module[0][0].weight,
            module[0][0].bias,
            module[0][1].bias,
            module[0][1].running_mean,
        ):
            tensor[[3, 4, 9, 12]] = 0
    image = [InputSpec((2, 3, 16, 16), dtype="float64")]
    result = prune_channels(module, image, PruneSpec(0.0, masked=True))
    sample = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        wanted = module(sample)
        # sums in float64 lose zero terms: only their order changes
        torch.testing.assert_close(
            result.module(sample), wanted, rtol=0, atol=1e-12 * wanted.abs().max().item()
        )
    assert result.report.notes == ("removed 4 zero channels.",)
    then = prune_channels(module, image, PruneSpec(0.5, masked=True, round_to=1))
    assert widths(then) == {"0.0": 6, "1.0": 16, "2.2": 10}
    assert {w.path: w.before for w in then.report.widths}["0.0"] == 16


def test_that_nothing_was_zero_is_said() -> None:
    report = prune_channels(build(chain), IMAGE, PruneSpec(0.0, masked=True)).report
    assert report.notes == ("no channel was zero.",)
    assert report.after == report.before


def test_readers_that_are_masked_free_the_channels_that_they_read() -> None:
    module = build(chain)
    masks.ln_structured(module[1][0], "weight", 4, n=2, dim=1)
    gone = (module[1][0].weight.transpose(0, 1).flatten(1) == 0).all(1).nonzero().flatten()
    assert zero_channels(module, IMAGE) == {"0.0": gone.tolist()}


def test_penalties_are_what_the_papers_say() -> None:
    module = build(chain)
    scales = module[0][1].weight.abs().sum() + module[1][1].weight.abs().sum()
    torch.testing.assert_close(norm_scale_penalty(module, 0.5), 0.5 * scales)
    weights = {one.layer: one for one in channel_weights(module, IMAGE)}
    # All parameters of channel c of the last convolution: its filter, its norm's scale, its readers' weights.
    squares = (
        module[1][0].weight.square().sum((1, 2, 3))
        + module[1][1].weight.square()
        + module[2][2].weight.square().sum(0)
    )
    torch.testing.assert_close(weights["1.0"].squares(module), squares)
    lasso = group_lasso(module, [weights["1.0"]], 0.1)
    torch.testing.assert_close(lasso, 0.1 * squares.sqrt().sum())
    doomed = weakest_channels(module, [weights["1.0"]], 0.25)
    assert doomed == {"1.0": sorted(squares.argsort()[:8].tolist())}
    penalty = growing_penalty(module, [weights["1.0"]], doomed, 3.0)
    torch.testing.assert_close(penalty, 1.5 * squares[doomed["1.0"]].sum())
    assert [growing_strength(i, delta=0.1, every=5, ceiling=0.25) for i in (4, 5, 14, 99)] == [
        0.0,
        0.1,
        0.2,
        0.25,
    ]
    # the paper's own: 1e-4 more every tenth iteration, up to 1
    assert [growing_strength(i) for i in (9, 10, 10**6)] == [0.0, 1e-4, 1.0]
    with pytest.raises(OptionError, match="no batch norm"):
        norm_scale_penalty(nn.Linear(2, 2))


def test_a_growing_penalty_in_a_loop_empties_the_channels_that_then_go() -> None:
    module = build(chain)
    weights = channel_weights(module, IMAGE)
    doomed = weakest_channels(module, weights, 0.25)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = {one.layer: one.squares(module).detach() for one in weights}
    for iteration in range(60):
        optimizer.zero_grad()
        strength = growing_strength(iteration, delta=0.5, every=5, ceiling=5.0)
        growing_penalty(module, weights, doomed, strength).backward()
        optimizer.step()
    for one in weights:
        gone = doomed[one.layer]
        after = one.squares(module).detach()
        assert (after[gone] < 1e-6 * before[one.layer][gone]).all()
    assert widths(prune_indices(module, IMAGE, doomed)) == {"0.0": 12, "1.0": 24, "2.2": 10}


class Doubled(nn.Module):
    """Every second channel is three times the one before it, also after its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.give = nn.Conv2d(3, 16, 3, padding=1)
        self.read = nn.Conv2d(16, 12, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12, 10)
        self.out = nn.Linear(10, 4)
        with torch.no_grad():
            for layer in (self.give, self.hidden):
                layer.weight[1::2] = 3 * layer.weight[::2]
                layer.bias[1::2] = 3 * layer.bias[::2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.read(torch.relu(self.give(x)))))
        return self.out(torch.relu(self.hidden(x.mean((2, 3)))))


def test_what_is_left_takes_over_what_went() -> None:
    module = build(Doubled)
    named = {"give": [1, 3, 5, 7, 9, 11, 13, 15], "hidden": [1, 3, 5, 7, 9]}
    result = prune_indices(module, IMAGE, named)
    images = torch.randn(64, 3, 16, 16)
    samples = [{"x": part} for part in images.split(16)]

    def off() -> float:
        with torch.no_grad():
            wanted = module(images)
            return float((result.module(images) - wanted).square().mean() / wanted.var())

    before = off()
    assert restore_outputs(module, result, samples) == ("read", "out")
    # The removed channels can be computed from the remaining ones, except for the regularization towards the
    # present weights: a thousandth of the inputs' mean square, against three quarters of it that are tripled.
    assert off() < 1e-3 * before
    for given, said in (
        ([], "there are none"),
        ([{"image": images}], "holds image; forward takes x"),
        ([images], "a dict with values for x, not a Tensor"),
        ([{"x": "cat.jpg"}], "not an array of numbers"),
        ([{"x": images[:, :2]}], r"does not take a sample of x \[64, 2, 16, 16\]"),
        ([{"x": images * torch.nan}], "'read' reads or gives NaN"),
    ):
        with pytest.raises(DataError, match=said):
            restore_outputs(module, result, given)


class TwoReaders(nn.Module):
    """A convolution and a linear layer read the channels, and so do layers called twice or with hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.give, self.read = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, 2, 2, dilation=2)
        self.twice = nn.Conv2d(12, 12, 1)
        self.hooked, self.out = nn.Linear(12, 12), nn.Linear(12, 4, bias=False)
        self.hooked.register_forward_hook(lambda _m, _i, output: output.relu())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.read(torch.relu(self.give(x))))
        x = self.twice(torch.relu(self.twice(x)))
        return self.out(input=self.hooked(x.mean((2, 3))))


def inputs_of(layer: nn.Module, module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    read: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(
        lambda _, given, named: read.extend((*given, *named.values())), with_kwargs=True
    )
    module(images)
    handle.remove()
    return read[0]


def rows_of(layer: Any, given: torch.Tensor) -> np.ndarray:
    """The weights of each output of a layer, ``[outputs, inputs]``."""
    if isinstance(layer, nn.Linear):
        return given.numpy()
    around, stride, apart = layer.padding[0], layer.stride[0], layer.dilation[0]
    maps = np.pad(given.numpy(), ((0, 0), (0, 0), (around, around), (around, around)))
    view = np.lib.stride_tricks.sliding_window_view(maps, [1 + 2 * apart] * 2, (2, 3))
    return (
        view[:, :, ::stride, ::stride, ::apart, ::apart].transpose(0, 2, 3, 1, 4, 5)
        .reshape(-1, 9 * maps.shape[1])
    )  # fmt: skip


@pytest.mark.parametrize("at_once", [True, False])
def test_the_new_weights_are_those_of_the_least_squares_near_the_old_ones(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:  # as if the outputs of all layers do not fit into memory together
        monkeypatch.setattr("trtbuild.pytorch.prune.restore._MOST_BYTES", 1)
    module = build(TwoReaders).double()
    named = {"give": [0, 5], "read": [1, 2], "hooked": [7, 8]}
    result = prune_indices(module, [InputSpec((2, 3, 8, 8), dtype="float64")], named)
    changed, before = result.module, copy.deepcopy(result.module)
    assert changed.twice.in_channels == changed.hooked.in_features == 10
    few = torch.randn(5, 3, 8, 8)  # fewer rows than either layer has inputs
    samples = [{"x": one.numpy()} for one in few.split(2)]
    assert restore_outputs(module, result, samples) == ("read", "out")

    images = few.double()
    for path, left in (("read", [0, *range(3, 12)]), ("out", range(4))):
        layer = changed.get_submodule(path)
        with torch.no_grad():
            rows = rows_of(layer, inputs_of(layer, changed, images))
            dense = module.get_submodule(path)
            wanted = dense(inputs_of(dense, module, images))
            old = before.get_submodule(path).weight.flatten(1).numpy()
        if layer.bias is not None:
            rows = np.pad(rows, ((0, 0), (0, 1)), constant_values=1)
            old = np.c_[old, before.get_submodule(path).bias.detach().numpy()]
            wanted = wanted.permute(0, 2, 3, 1).flatten(0, 2)
        pull = np.sqrt(1e-3 * np.square(rows).sum(0).mean()) * np.eye(rows.shape[1])
        right = np.r_[wanted.numpy()[:, list(left)], pull @ old.T]
        best = np.linalg.lstsq(np.r_[rows, pull], right, rcond=None)[0].T
        found = layer.weight.detach().flatten(1).numpy()
        # eps times a condition of some 1e5: the inputs' squares over a thousandth of their mean
        np.testing.assert_allclose(found, best[:, : found.shape[1]], rtol=0, atol=1e-9)


def test_what_two_cuts_took_is_restored_at_once() -> None:
    module = build(chain)
    masks.ln_structured(module[0][0], "weight", 0.25, 2, 0)
    result = prune_channels(module, IMAGE, PruneSpec(0.25, masked=True, round_to=1))
    assert result.history.before is not None
    images = torch.randn(32, 3, 16, 16)
    again = prune_channels(result.module, IMAGE, PruneSpec(0.25, round_to=1))

    def off(small: nn.Module, dense: nn.Module) -> float:
        with torch.no_grad():
            return float((small(images) - dense(images)).square().mean())

    for dense, done in ((module, result), (result.module, again), (module, again)):
        before = off(done.module, dense)
        with torch.inference_mode():  # as in evaluation scripts
            assert restore_outputs(dense, done, [{"input": part} for part in images.split(16)])
        assert off(done.module, dense) < before


def test_channels_that_are_not_there_are_named_by_the_penalty() -> None:
    module = build(chain)
    weights = channel_weights(module, IMAGE)
    first = weights[0].layer
    width = weights[0].width
    wrong: Any
    for wrong in ([width], [-1], [0.5]):
        with pytest.raises(OptionError, match=f"'{first}' has no channel"):
            growing_penalty(module, weights, {first: wrong}, 1.0)
    with pytest.raises(OptionError, match="'nowhere'"):
        growing_penalty(module, weights, {first: [0], "nowhere": [0]}, 1.0)
    small = prune_indices(module, IMAGE, {first: [0]}).module
    for other in (small, nn.Identity()):
        with pytest.raises(OptionError, match="call it again after every cut"):
            group_lasso(other, weights)
