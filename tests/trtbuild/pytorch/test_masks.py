"""Masks over weights: amounts, methods, training under masks, and making them permanent."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from trtbuild.errors import OptionError  # noqa: E402
from trtbuild.pytorch.copies import copy_module  # noqa: E402
from trtbuild.pytorch.prune import (  # noqa: E402
    is_masked,
    make_masks_permanent,
    mask_globally,
    mask_slices,
    mask_weights,
    parse_amount,
    sparsity_report,
)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 10, 3), nn.BatchNorm2d(10), nn.Linear(10, 20, bias=False))


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0.3", 0.3), ("30%", 0.3), ("100%", 1.0), ("1.0", 1.0), ("12", 12), ("1 weight", 1),
     ("12 weights", 12), ("0", 0), ("0.0", 0.0)],
)  # fmt: skip
def test_amounts(text: str, amount: float) -> None:
    parsed = parse_amount(text)
    assert parsed == amount
    assert type(parsed) is type(amount)


@pytest.mark.parametrize("text", ["1", "-3", "1.5", "150%", "half", "", "nan"])
def test_amounts_that_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="amount"):
        parse_amount(text)


@pytest.mark.parametrize("pattern", ["0", "Conv2d", "Conv*", "re:[01]", "?"])
def test_layers_by_path_class_glob_and_expression(pattern: str) -> None:
    report = mask_weights(net(), 0.5, layers=[pattern])
    assert {layer.name for layer in report.layers if layer.num_zeros} >= {"0"}
    assert (report.layers[1].num_zeros > 0) == (pattern == "?")


@pytest.mark.parametrize(
    ("pattern", "told"), [("re:(", "not a regular expression"), ("re:9", "no layer")]
)
def test_patterns_that_say_nothing(pattern: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        mask_weights(net(), 0.5, layers=[pattern])


@pytest.mark.parametrize("method", ["l1", "random"])
def test_single_weights(method: str) -> None:
    module = net()
    before = module[0].weight.detach().abs().flatten().sort().values
    report = mask_weights(module, 0.5, method=method, layers=["0"])
    assert [(layer.name, layer.num_zeros) for layer in report.layers] == [("0", 180), ("2", 0)]
    assert report.total.share == 180 / 560
    if method == "l1":
        assert module[0].weight.abs()[module[0].weight != 0].min() == before[180]


def test_calls_stack_on_what_is_left() -> None:
    module = net()
    mask_weights(module, 0.5, layers=["2"])
    assert mask_weights(module, 0.5, layers=["2"]).layers[1].num_zeros == 150


class EverySecond(prune.BasePruningMethod):
    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def test_a_method_of_ones_own() -> None:
    module = net()
    mask_weights(module, 0.5, method=EverySecond, layers=["2"])
    assert (module[2].weight.flatten()[::2] == 0).all()
    mask_globally(net(), 0.5, method=EverySecond)


@pytest.mark.parametrize("n", [1, 2, float("inf"), -float("inf"), 0])
def test_slices(n: float) -> None:
    module = net()
    mask_slices(module, 3, n=n, dim=0, layers=["0"])
    assert (module[0].weight.flatten(1) == 0).all(1).sum() == 3


def test_slices_go_by_their_norm_and_axis() -> None:
    module = net()
    with torch.no_grad():
        module[2].weight[:, 4] *= 1e-3
    mask_slices(module, 1, dim=1, layers=["2"])
    assert (module[2].weight[:, 4] == 0).all()
    mask_slices(module, 0.5, method="random", dim=0, layers=["2"])
    assert (module[2].weight == 0).all(1).sum() == 10


def test_global_masks_rank_all_layers_together() -> None:
    module = net()
    with torch.no_grad():
        module[0].weight.fill_(100)
    report = mask_globally(module, 200)
    assert [layer.num_zeros for layer in report.layers] == [0, 200]


def test_global_masks_by_given_scores() -> None:
    module = net()
    scores = {"0": torch.zeros(10, 4, 3, 3), "2": torch.ones(20, 10)}
    report = mask_globally(module, 360, scores=scores)
    assert [layer.num_zeros for layer in report.layers] == [360, 0]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m: mask_weights(m, 1.5), "out of range for 0"),
        (lambda m: mask_weights(m, 1000, layers=["2"]), "a count up to 200"),
        (lambda m: mask_weights(m, 0.5, layers=["9"]), "matches no layer"),
        (
            lambda m: mask_weights(m, 0.5, parameter="bias"),
            r"'2' \(Linear\) has no parameter 'bias'",
        ),
        (lambda m: mask_weights(m, 0.5, method="l3"), "'l3' is not"),
        (lambda m: mask_slices(m, 0.5, dim=3, layers=["2"]), "there is no axis 3"),
        (lambda m: mask_slices(m, 0.5, n="fro"), "by 'ln' with a number"),
        (lambda m: mask_globally(m, 0.5, method=prune.LnStructured), "PRUNING_TYPE 'unstructured'"),
        (lambda m: mask_globally(m, 0.5, scores={"1": torch.zeros(10)}), "scores of '1'"),
    ],
)
def test_masks_that_make_no_sense_are_refused(call: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        call(net())


def test_masks_hold_through_training_until_they_are_permanent() -> None:
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    mask_weights(module, 0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.randn(4, 10)).square().sum().backward()
        optimizer.step()
    assert is_masked(module)
    assert sparsity_report(module).total.share == 0.5

    copied = copy_module(module)  # copy.deepcopy refuses it
    assert make_masks_permanent(copied) == ["0.weight", "2.weight"]
    assert not is_masked(copied)
    assert sparsity_report(copied).total.share == 0.5
    assert set(copied.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert is_masked(module)
    assert make_masks_permanent(copied) == []


class EveryOther(prune.BasePruningMethod):
    """The example of torch's own tutorial: it takes no amount."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


class EveryOtherByName(EveryOther):
    @classmethod
    def apply(cls, module: nn.Module, name: str) -> Any:
        return super().apply(module, name)


@pytest.mark.parametrize("method", [EveryOther, EveryOtherByName])
def test_a_method_that_takes_no_amount(method: Any) -> None:
    assert mask_weights(net(), method=method).total.share == 0.5
    with pytest.raises(OptionError, match="say how much"):
        mask_weights(net())


def test_a_global_method_that_takes_no_amount() -> None:
    assert mask_globally(net(), method=EveryOther).total.share == 0.5
