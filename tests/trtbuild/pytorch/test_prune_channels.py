"""Which channels are removed, how many, and the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from torch import nn  # noqa: E402

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from tests.trtbuild.pytorch.prune_cases import (  # noqa: E402
    Transformer,
    chain,
    inception,
    residual,
)
from tests.trtbuild.pytorch.resnet20 import ResNet20  # noqa: E402
from trtbuild.errors import ModelError, OptionError  # noqa: E402
from trtbuild.pytorch import ModuleSource, load_module  # noqa: E402
from trtbuild.pytorch.cost import count_cost  # noqa: E402
from trtbuild.pytorch.inputs import bind_inputs  # noqa: E402
from trtbuild.pytorch.prune import (  # noqa: E402
    history_of,
    list_groups,
    load_pruned,
    prune_channels,
    save_pruned,
)
from trtbuild.pytorch.prune.widths import Span, kept_channels  # noqa: E402
from trtbuild.pytorch.spec import CRITERIA, CRITERIA_BY_LOSS, InputSpec, PruneSpec  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = [InputSpec((2, 3, 16, 16))]


def widths(module: nn.Module, spec: PruneSpec, **options: Any) -> dict[str, int]:
    report = prune_channels(module, IMAGE, spec, **options).report
    return {width.path: width.after for width in report.widths}


def make_dead(module: nn.Module, paths: list[str], channels: range) -> None:
    """Make output channels zero: weight, bias, and the norm's scale and shift."""
    with torch.no_grad():
        for path in paths:
            layer = module.get_submodule(path)
            for tensor in (layer.weight, layer.bias):
                tensor[list(channels)] = 0


@pytest.mark.parametrize(
    ("build", "dead"),
    [
        (chain, {8: ["0.0", "0.1"], 16: ["1.0", "1.1"]}),
        # The sum of the residual couples the stem with the block's last convolution.
        (residual, {8: ["0.0", "0.1", "1.b", "1.a.0", "1.a.1"],
                    16: ["2.project", "2.b", "2.a.0", "2.a.1"]}),
        (inception, {8: ["stem.0", "stem.1", "b.0", "b.1", "after.0", "after.1"], 4: ["a.0", "a.1"],
                     12: ["c.0", "c.1"]}),
    ],
)  # fmt: skip
def test_dead_channels_are_found_and_their_removal_changes_nothing(build: Any, dead: Any) -> None:
    torch.manual_seed(0)
    module = randomize(build()).double()
    for count, paths in dead.items():
        make_dead(module, paths, range(1, 2 * count, 2))
    image = [InputSpec((2, 3, 16, 16), dtype="float64")]
    result = prune_channels(module, image, PruneSpec(0.5, round_to=1))
    assert result.report.achieved == 0.5
    sample = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        want, got = module(sample), result.module(sample)
    # Sums in float64 lose zero terms: only their order changes, some 1e-16 per layer.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12 * want.abs().max().item())


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name not in CRITERIA_BY_LOSS])
def test_criteria(criterion: str) -> None:
    torch.manual_seed(0)
    found = widths(randomize(chain()), PruneSpec(0.5, criterion, round_to=1))
    assert (found["0.0"], found["1.0"], found["2.2"]) == (8, 16, 10)


def test_a_criterion_by_gradients_needs_a_loss_and_uses_it() -> None:
    torch.manual_seed(0)
    module = randomize(chain())
    with pytest.raises(OptionError, match="needs a loss"):
        prune_channels(module, IMAGE, PruneSpec(0.5, "taylor"))
    batch = torch.randn(4, 3, 16, 16)
    # Only the first half of the last layer's inputs matters to this loss.
    with torch.no_grad():
        module[2][2].weight[:, 16:] = 0
    result = prune_channels(
        module,
        IMAGE,
        PruneSpec(0.5, "taylor", round_to=1),
        loss=lambda net: net(batch).square().sum(),
    )
    removed = {path: indices for path, _, indices in result.history.cuts}
    assert sorted(removed["1.0"]) == list(range(16, 32))
    assert all(p.grad is None for p in result.module.parameters())


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_a_loss_by_name(criterion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losses.py").write_text(
        "import torch\n"
        "def loss(module):\n"
        "    out = module(torch.ones(3, 3, 16, 16))\n"
        "    return out.square().sum(1)\n"
        "def plain(module):\n"
        "    return 1.0\n"
    )
    monkeypatch.chdir(tmp_path)
    module = randomize(chain())
    spec = PruneSpec(0.5, criterion, round_to=1, loss="losses.py:loss")
    assert widths(module, spec)["0.0"] == 8
    with pytest.raises(OptionError, match="returned float without gradients"):
        widths(module, PruneSpec(0.5, criterion, loss="losses.py:plain"))
    with pytest.raises(OptionError, match="--prune-loss"):
        widths(module, PruneSpec(0.5, criterion))


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
@pytest.mark.parametrize(("factor", "count"), [(float("nan"), 3), (float("inf"), 3), (1.0, 0)])
def test_a_loss_that_ranks_nothing_is_refused(criterion: str, factor: float, count: int) -> None:
    def loss(net: nn.Module) -> torch.Tensor:
        return factor * net(torch.ones(count, 4)).square().sum(1)

    with pytest.raises(OptionError, match=r"the loss gave .* ranked by it"):
        prune_channels(
            dense_pair(), [InputSpec((2, 4))], PruneSpec(0.5, criterion, round_to=1), loss=loss
        )


def dense_pair() -> nn.Module:
    """Channel c of eight reads input c % 4 alone."""
    module = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 3, bias=False)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(4).repeat(2, 1) * torch.linspace(0.9, 1.1, 8)[:, None])
        module[1].weight.copy_(torch.linspace(0.5, 1, 24).view(3, 8))
    return module


@pytest.mark.parametrize("count", [6, 3000])
def test_the_curvature_is_of_all_samples(count: int) -> None:
    module, batch = dense_pair(), torch.zeros(count, 4)
    batch[:-1, :2], batch[-1, 2:] = (
        1.0,
        0.5,
    )  # by the last sample alone, other channels would be removed
    first, second = module[0].weight.detach().double(), module[1].weight.detach().double()
    hidden = batch.double() @ first.T
    behind = 2 * hidden @ second.T  # gradient of the loss below by the outputs, a row per sample
    by_first = (behind @ second).square().T @ batch.double().square()
    by_second = behind.square().T @ hidden.square()
    value = (first.square() * by_first).sum(1) + (second.square() * by_second).sum(0)
    ways: list[None] = []

    def loss(net: nn.Module) -> torch.Tensor:
        net[1].weight.register_hook(lambda _: ways.append(None))
        return net(batch).square().sum(1)

    spec = PruneSpec(0.5, "hessian", round_to=1)
    (cut,) = prune_channels(module, [InputSpec((2, 4))], spec, loss=loss).history.cuts
    order = value.argsort()
    assert (
        value[order[4]] > 4 * value[order[3]]
    )  # too far apart for the estimate to change the order
    assert sorted(cut[2]) == sorted(order[:4].tolist()) == [2, 3, 6, 7]
    assert len(ways) <= 2 * 64


def test_an_importance_of_ones_own() -> None:
    module = randomize(chain())

    def first_ones_last(group: Any) -> torch.Tensor:
        return -torch.arange(len(group[0].idxs), dtype=torch.float32)

    result = prune_channels(module, IMAGE, PruneSpec(0.25, round_to=1), importance=first_ones_last)
    assert sorted(result.history.cuts[-1][2]) in ([12, 13, 14, 15], list(range(24, 32)))


def test_ratios_by_pattern_and_layers_to_keep() -> None:
    spec = PruneSpec(0.5, round_to=1, layer_ratios=(("1.*", 0.75),), ignore=("0",))
    found = prune_channels(randomize(chain()), IMAGE, spec).report
    assert {w.path: w.after for w in found.widths} == {"0.0": 16, "1.0": 8, "2.2": 10}
    assert found.widths[0].kept == "it is kept by a pattern"
    assert found.achieved == 0.75  # only one layer could be cut


@pytest.mark.parametrize("field", ["ignore", "layer_ratios"])
def test_a_pattern_that_matches_nothing(field: str) -> None:
    value = ("0.o",) if field == "ignore" else (("0.o", 0.5),)
    with pytest.raises(OptionError, match=r"'0\.o' matches no layer; there are '0\.0'"):
        prune_channels(chain().eval(), IMAGE, PruneSpec(0.5, **{field: value}))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2])
def test_ratios_out_of_range(ratio: float) -> None:
    with pytest.raises(OptionError, match="out of range"):
        PruneSpec(ratio)


def test_rounding_suits_each_layer_and_keeps_the_wish() -> None:
    wide = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3), nn.Conv2d(128, 5, 1)
    )
    report = prune_channels(wide.eval(), IMAGE, PruneSpec(0.5)).report
    assert (report.round_to, report.widths[0].after, report.widths[1].after) == (32, 32, 64)
    report = prune_channels(wide.eval(), IMAGE, PruneSpec(0.4)).report
    assert abs(report.achieved - 0.4) <= 0.02
    assert prune_channels(chain().eval(), IMAGE, PruneSpec(0.5)).report.round_to == 8


@given(
    st.lists(st.integers(2, 600), min_size=1, max_size=12),
    st.floats(0.05, 0.9),
    st.sampled_from((None, 4, 8, 32)),
)
def test_rounded_widths_keep_the_wish(sizes: list[int], ratio: float, round_to: int | None) -> None:
    spans = [Span(size, 1, 1, size * (1 - ratio), max(1, size // 10), 1) for size in sizes]
    kept = kept_channels(spans, round_to)
    wish = sum(span.wish for span in spans)
    step = round_to or 1
    assert all(0 < count <= size for count, size in zip(kept, sizes))
    assert all(count % step == 0 or count == size for count, size in zip(kept, sizes))
    # a group that cannot be rounded stays whole, so the target may be missed by one group per step
    assert abs(sum(kept) - wish) <= 0.02 * sum(sizes) + len(sizes) * step


def test_heads_and_convolution_groups_go_in_their_multiples() -> None:
    spans = [Span(96, 12, 1, 50, 12, 1), Span(64, 1, 6, 30, 6, 2)]
    kept = kept_channels(spans, None)
    assert kept[0] % 12 == 0
    assert kept[1] % 6 == 0


def test_a_group_makes_up_for_others_by_fifteen_percent_of_its_channels() -> None:
    whole = Span(64, 64, 1, 20, 1, 1)  # removed as a whole or not at all
    assert kept_channels([whole, Span(64, 1, 1, 32, 1, 1)], None) == [64, 32 - 9]


def test_a_layer_that_rounding_would_empty_is_reported() -> None:
    report = prune_channels(chain().eval(), IMAGE, PruneSpec(0.5, round_to=16)).report
    assert report.widths[0].after == 16
    assert "rounding to 16, left nothing to remove" in report.widths[0].kept
    assert report.widths[1].after == 16
    assert report.achieved == pytest.approx(16 / 48)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_budget_of_products_or_parameters_is_met(scope: str) -> None:
    torch.manual_seed(0)
    module = randomize(residual())
    dense = count_cost(module, bind_inputs(module, IMAGE))
    assert dense.macs is not None
    report = prune_channels(module, IMAGE, PruneSpec(0.0, macs=0.5, scope=scope)).report
    assert report.after.macs is not None
    assert 0.4 < report.after.macs / dense.macs <= 0.5
    report = prune_channels(module, IMAGE, PruneSpec(0.0, parameters=0.6, scope=scope)).report
    assert 0.5 < report.after.parameters / dense.parameters <= 0.6


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(OptionError, match="cannot be met"):
        prune_channels(randomize(chain()), IMAGE, PruneSpec(0.0, macs=0.001))


@pytest.mark.parametrize("scope", ["global", "isomorphic"])
def test_global_ranking_keeps_a_floor(scope: str) -> None:
    torch.manual_seed(0)
    module = randomize(residual())
    with torch.no_grad():
        module[2].a[0].weight.mul_(1e-3)  # a layer that a global ranking would empty
    found = widths(module, PruneSpec(0.5, scope=scope, round_to=1, max_ratio=0.75))
    assert found["2.a.0"] >= 1
    assert sum(found.values()) < 16 * 3 + 32 * 3 + 10


def test_steps_call_back_between_cuts() -> None:
    seen = []

    def tune(net: nn.Module, step: int, steps: int) -> None:
        seen.append((step, steps, net[1][0].out_channels))
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        net(torch.randn(4, 3, 16, 16)).square().sum().backward()
        optimizer.step()

    result = prune_channels(chain(), IMAGE, PruneSpec(0.5, steps=4, round_to=1), after_step=tune)
    assert seen == [(1, 4, 28), (2, 4, 24), (3, 4, 20), (4, 4, 16)]
    assert not any("fine-tuned" in note for note in result.report.notes)
    assert not result.module.training


def test_whole_heads() -> None:
    torch.manual_seed(0)
    module = Transformer().eval()
    result = prune_channels(module, IMAGE, PruneSpec(0.0, head_ratio=0.5, round_to=1))
    assert result.module.blocks[0].attn.num_heads == 2
    assert result.module.blocks[0].attn.qkv.out_features == 48
    assert result.history.attributes["blocks.0.attn"]["num_heads"] == 2
    assert result.module(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_groups_say_what_triggers_what() -> None:
    groups = {group.root: group for group in list_groups(residual().eval(), IMAGE, PruneSpec())}
    stem = next(group for group in groups.values() if any(m.path == "0.0" for m in group.members))
    assert {m.path for m in stem.members if m.side == "out"} >= {"0.0", "0.1", "1.b"}
    reading = next(m for m in stem.members if m.path == "1.a.0")
    assert (reading.side, reading.num_channels) == ("in", 16)
    assert reading.because in {"0.1", "1.b"}  # the nearest layer on the path from the root
    assert groups["3.2"].kept == "it gives the network's output"


def test_cost_of_resnet20() -> None:
    # By hand: 27*16*32^2 + 6*144*16*32^2 + (144+5*288)*32*16^2 + (288+5*576)*64*8^2 + 640.
    assert (
        count_cost(ResNet20().eval(), bind_inputs(ResNet20(), [InputSpec((2, 3, 32, 32))])).macs
        == 40551040
    )


def test_cost_counts_attention_and_transposed_convolutions() -> None:
    module = Transformer().eval()
    # Patch 48*32*16, per block qkv+proj+mlp 16*32*(96+32+256) and attention 2*16*16*32, output 320.
    expected = 48 * 32 * 16 + 2 * (16 * 32 * (96 + 32 + 256) + 2 * 16 * 16 * 32) + 320
    assert count_cost(module, bind_inputs(module, IMAGE)).macs == expected
    up = nn.ConvTranspose2d(3, 5, 2, 2)
    assert count_cost(up, bind_inputs(up, IMAGE)).macs == 3 * 16 * 16 * 5 * 4


def test_a_folder_loads_like_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    result = prune_channels(chain().eval(), IMAGE, PruneSpec(0.5))
    save_pruned(result.module, result.history, tmp_path / "pruned")
    source = ModuleSource("tests.trtbuild.pytorch.prune_cases:chain", weights=tmp_path / "pruned")
    loaded = load_module(source).module
    torch.testing.assert_close(loaded[1][0].weight, result.module[1][0].weight)


def test_pruned_twice_and_tuned_between_loads_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = prune_channels(chain().eval(), IMAGE, PruneSpec(0.25))
    save_pruned(first.module, first.history, tmp_path / "first")
    tuned = load_pruned(chain().eval(), tmp_path / "first")
    with torch.no_grad():
        tuned[0][0].weight.mul_(2)
    history = history_of(tuned)
    assert history is not None
    save_pruned(tuned, history, tmp_path / "tuned")
    again = load_pruned(chain().eval(), tmp_path / "tuned")
    torch.testing.assert_close(again[0][0].weight, first.module[0][0].weight * 2)
    second = prune_channels(again, IMAGE, PruneSpec(0.5))
    save_pruned(second.module, second.history, tmp_path / "second")
    loaded = load_pruned(chain().eval(), tmp_path / "second")
    torch.testing.assert_close(loaded[1][0].weight, second.module[1][0].weight)
    assert loaded[0][0].out_channels < tuned[0][0].out_channels < 16
    assert history_of(chain()) is None


def change(folder: Path, **fields: Any) -> None:
    path = folder / "pruning.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"format": 9}, "has format 9"),
        ({"cuts": [["0.0", True, [99]]]}, "cuts channels that '0.0' \\(width 16\\) has not"),
        ({"cuts": [["0.0", True, list(range(16))]]}, "has not"),
        ({"cuts": [["no.such", True, [1]]]}, "belongs to another module"),
        ({"cuts": "what"}, "is damaged"),
        ({"cuts": []}, "do not fit the pruned module"),
    ],
)
def test_histories_that_do_not_fit(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    result = prune_channels(chain().eval(), IMAGE, PruneSpec(0.5))
    save_pruned(result.module, result.history, tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(ModelError, match=told):
        load_pruned(chain().eval(), tmp_path)


def test_a_folder_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no pruned module"):
        load_pruned(chain(), tmp_path)


def test_gradients_off_and_train_mode_do_not_matter() -> None:
    module = chain().train()
    with torch.inference_mode():
        found = widths(module, PruneSpec(0.5))
    assert found["1.0"] == 16
    assert module.training


class OwnRMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


@pytest.mark.parametrize("norm", [OwnRMSNorm, nn.RMSNorm])
def test_norms_over_channels_are_cut_with_their_layer(norm: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)

    def build() -> nn.Module:
        layers = [nn.Linear(8, 16), norm(16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)]
        return nn.Sequential(*layers).eval()

    result = prune_channels(build(), [InputSpec((2, 5, 8))], PruneSpec(0.5))
    assert [width.after for width in result.report.widths] == [8, 8, 4]
    assert result.report.inexact
    save_pruned(result.module, result.history, tmp_path)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(load_pruned(build(), tmp_path)(x), result.module(x))
