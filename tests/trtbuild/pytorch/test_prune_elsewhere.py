"""Pruning that users did with PyTorch or Torch-Pruning themselves can be continued here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")
tp = pytest.importorskip("torch_pruning")

from torch import nn  # noqa: E402
from torch.nn.utils import prune as masks  # noqa: E402

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from tests.trtbuild.pytorch.prune_cases import C2F, c2f, residual  # noqa: E402
from tests.trtbuild.pytorch.test_masks import EveryOther  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402
from trtbuild.pytorch.prune import (  # noqa: E402
    is_masked,
    make_masks_permanent,
    mask_weights,
    prune_channels,
)
from trtbuild.pytorch.spec import PruneSpec  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = [InputSpec((2, 3, 16, 16))]


def build() -> nn.Module:
    torch.manual_seed(0)
    return randomize(residual())


@pytest.mark.parametrize(
    "importance",
    [tp.importance.MagnitudeImportance(p=2), tp.importance.BNScaleImportance()],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_what_the_library_cut_in_steps_is_exported_and_pruned_further(importance: object) -> None:
    module = build()
    sample = torch.randn(1, 3, 16, 16)
    pruner = tp.pruner.MagnitudePruner(
        module, sample, importance=importance, pruning_ratio=0.5, iterative_steps=2,
        ignored_layers=[module[3][2]],
    )  # fmt: skip
    for _ in range(2):
        for group in pruner.step(interactive=True):
            group.prune()
    assert module[0][0].out_channels == 8
    assert export_onnx(module, IMAGE).parity.relative_error < 1e-3
    result = prune_channels(module, IMAGE, PruneSpec(0.5, round_to=1))
    assert result.module[0][0].out_channels == 4


def test_the_library_s_graph_and_history_work_beside_ours(tmp_path: Path) -> None:
    module = build()
    prune_channels(module, IMAGE, PruneSpec(0.5))  # ours first: it leaves no state in the library
    assert tp.dependency.DependencyGraph is tp.DependencyGraph
    graph = tp.DependencyGraph().build_dependency(module, torch.randn(1, 3, 16, 16))
    group = graph.get_pruning_group(module[0][0], tp.prune_conv_out_channels, idxs=[2, 6, 9])
    assert graph.check_pruning_group(group)
    group.prune()
    assert module[1].b.out_channels == 13
    torch.save(tp.state_dict(module), tmp_path / "library.pth")
    again = tp.load_state_dict(build(), torch.load(tmp_path / "library.pth", weights_only=False))
    again.eval()
    sample = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again(sample), module(sample), rtol=0, atol=0)
    assert export_onnx(again, IMAGE).parity.relative_error < 1e-3


def test_an_importance_of_the_library_ranks_here() -> None:
    for importance in (tp.importance.GroupMagnitudeImportance(), tp.importance.LAMPImportance()):
        result = prune_channels(build(), IMAGE, PruneSpec(0.5, round_to=1), importance=importance)
        assert result.module[0][0].out_channels == 8


@pytest.mark.parametrize(
    ("reduction", "normalizer"),
    [("mean", "gaussian"), ("sum", None), ("max", "mean"), ("first", "max")],
)
def test_importances_reduce_and_normalize_as_they_do_there(
    reduction: str, normalizer: str | None
) -> None:
    importance = tp.importance.GroupMagnitudeImportance(
        group_reduction=reduction, normalizer=normalizer
    )
    module = build()
    first, *others = module[1].b, module[0][0], module[0][1]  # the library's group begins with it
    with torch.no_grad():
        # channel 5 has small weights in the first layer and none in the others; channel 3 only in the others
        first.weight[5] *= 0.01
        first.weight[3] = 0
        for gives in others:
            gives.weight[5] = 0
            gives.weight[3] *= 9
        for reads in (module[1].a[0], module[2].a[0], module[2].project):
            reads.weight[:, 5] = 0
            reads.weight[:, 3] *= 9
    result = prune_channels(module, IMAGE, PruneSpec(0.05, round_to=1), importance=importance)
    gone = 3 if reduction == "first" else 5
    kept = [channel for channel in range(16) if channel != gone]
    assert result.module[0][0].weight.equal(module[0][0].weight[kept])


class TwoInputs(nn.Module):
    """Two inputs, each through its own layer into one sum, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(4, 16)
        self.shared, self.map = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 2, 1)
        self.scores = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor, *, words: torch.Tensor) -> list[object]:
        mixed = self.left(image) + self.right(words)[:, :, None, None]
        found = self.shared(mixed.relu()).relu()
        return [{"map": self.map(found)}, self.scores(found.mean((2, 3)))]


def test_several_inputs_and_outputs_and_all_that_is_left_learns() -> None:
    torch.manual_seed(0)
    inputs = [InputSpec((2, 3, 8, 8)), InputSpec((2, 4), name="words")]
    module = prune_channels(TwoInputs().eval(), inputs, PruneSpec(0.5, round_to=1)).module
    assert (module.left.out_channels, module.right.out_features) == (8, 8)
    assert module.shared.out_channels == module.scores.in_features == module.map.in_channels == 4
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = [one.detach().clone() for one in module.parameters()]
    maps, scores = module(torch.randn(2, 3, 8, 8), words=torch.randn(2, 4))
    (maps["map"].square().sum() + scores.square().sum()).backward()
    optimizer.step()
    assert not any(one.equal(old) for one, old in zip(module.parameters(), before))


def test_pieces_go_in_steps() -> None:
    torch.manual_seed(0)
    module = randomize(c2f(C2F["split by a stored size"])())
    seen: list[int] = []
    result = prune_channels(
        module, IMAGE, PruneSpec(0.5, steps=2, round_to=1),
        after_step=lambda net, step, steps: seen.append(net[1].c),
    )  # fmt: skip
    assert (seen, result.module[1].c) == ([6, 4], 4)


def every_other(module: nn.Module, name: str) -> nn.Module:
    EveryOther.apply(module, name)
    return module


def test_masks_made_by_torch_and_by_a_method_of_ones_own() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(1152, 4)
    )
    masks.random_structured(module[0], "weight", amount=0.25, dim=0)
    masks.l1_unstructured(module[2], "weight", amount=12)
    masks.l1_unstructured(module[2], "weight", amount=0.5)  # on top of the first mask
    masks.l1_unstructured(module[2], "bias", amount=2)
    every_other(module[4], "weight")
    mask_weights(module, method=EveryOther, layers=["0"])
    assert is_masked(module)
    want = {name: value.detach().clone() for name, value in weights(module)}
    exported = export_onnx(module, IMAGE)
    found = {v.name: v.const_value.numpy() for v in exported.model.graph.initializers.values()}
    for name, value in want.items():
        torch.testing.assert_close(torch.from_numpy(found[name].copy()), value, rtol=0, atol=0)
    assert is_masked(module)  # the module that is given keeps its masks
    assert sorted(make_masks_permanent(module)) == [
        "0.weight",
        "2.bias",
        "2.weight",
        "4.weight",
    ]
    assert not is_masked(module)


def weights(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Each masked parameter: its original value times its mask."""
    found = []
    for path in ("0.weight", "2.weight", "2.bias", "4.weight"):
        owner, _, name = path.rpartition(".")
        layer = module.get_submodule(owner)
        found.append((path, getattr(layer, f"{name}_orig") * getattr(layer, f"{name}_mask")))
    return found
