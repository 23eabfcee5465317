"""Every condition under which a norm can or cannot be folded: never wrong, never a crash."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from tests.trtbuild.pytorch.fold_cases import CASES, Case, randomize  # noqa: E402
from trtbuild.errors import ModelError  # noqa: E402
from trtbuild.passes import OptimizeOptions, optimize  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx, fold_norms  # noqa: E402
from trtbuild.pytorch.fold.on_module import LEFT_TO_PASSES  # noqa: E402

# The old weight_norm warns that a newer one exists; people's checkpoints still use it.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def build(case: Case) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomize(case.build())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_norms_are_folded_or_kept_with_a_reason(case: Case) -> None:
    module = build(case)
    sample = torch.randn(case.dims, generator=torch.Generator().manual_seed(5))
    before = module(sample)

    result = fold_norms(module, [InputSpec(case.dims)])

    assert (len(result.report.folded), len(result.report.left)) == (case.folded, case.left)
    for fate in result.report.left:
        assert case.reason in fate.reason
    later = [fate for fate in result.report.left if LEFT_TO_PASSES in fate.reason]
    assert len(later) == case.in_graph
    after, again = result.module(sample), module(sample)
    torch.testing.assert_close(again, before, rtol=0, atol=0, equal_nan=True)  # not touched
    # One layer in float32 against the same layer folded: 2e-7 to 6e-7 of the largest value each.
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5, equal_nan=True)
    if case.folded:
        assert result.report.relative_error is not None
        assert result.report.relative_error < 1e-13
    norms = [
        m for m in result.module.modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)
    ]
    functional = sum(fate.kind == "functional" for fate in result.report.left)
    assert len(norms) == case.left - functional


# The result of a fold on torch's own graph: one convolution per call, with the operators between and after.
OPERATORS = {
    "one conv, two norms": {"Conv": 2, "Mul": 1, "Add": 1},
    "one conv, with a norm and bare": {"Conv": 2, "Mul": 1, "Add": 1},
    "functional": {"Conv": 1},
    "conv with its own forward": {"Conv": 1},
    "norm with its own forward": {"Conv": 1},
    "hook that changes the norm": {"Conv": 1, "Relu": 1},
    "norm read elsewhere": {"Conv": 1},
    "weight read elsewhere": {"Conv": 2, "Add": 1},
}
IN_GRAPH = [case for case in CASES if case.in_graph]


@pytest.mark.parametrize("case", IN_GRAPH, ids=lambda case: case.name)
def test_what_a_module_cannot_express_is_folded_by_the_graph_passes(case: Case) -> None:
    result = export_onnx(build(case), [InputSpec(case.dims, dynamic={0: "batch"})])
    assert result.fold is not None
    assert {fate.outcome for fate in result.fold.fates} == {"left"}
    optimized = optimize(result.model, OptimizeOptions())
    assert not optimized.log.rolled_back
    counts = Counter(node.op_type for node in optimized.model.graph)
    assert counts == OPERATORS[case.name]


NOT_FOR_EXPORT = [case for case in CASES if not case.exports]


@pytest.mark.parametrize("case", NOT_FOR_EXPORT, ids=lambda case: case.name)
def test_what_cannot_be_exported_is_refused(case: Case) -> None:
    with pytest.raises(ModelError):
        export_onnx(build(case), [InputSpec(case.dims)])


def test_batch_statistics_that_the_exporter_gets_wrong_are_caught() -> None:
    case = next(case for case in CASES if case.name == "functional with batch statistics")
    with pytest.raises(ModelError, match="computes something else"):
        export_onnx(build(case), [InputSpec(case.dims)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept(dtype: torch.dtype) -> None:
    module = build(CASES[0]).to(dtype)
    name = str(dtype).removeprefix("torch.")
    folded = fold_norms(module, [InputSpec(CASES[0].dims, dtype=name)])
    assert len(folded.report.folded) == 1
    assert {tensor.dtype for tensor in folded.module.parameters()} == {dtype}


def test_a_wrong_fold_is_taken_back() -> None:
    class Sly(torch.nn.Module):
        """Checks the type of its norm, which no graph shows."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.bn_a = torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8)
            self.b, self.bn_b = torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.bn_a(self.a(x))
            if not isinstance(self.bn_b, torch.nn.BatchNorm2d):
                x = x * 1.5
            return self.bn_b(self.b(x))

    torch.manual_seed(0)
    report = fold_norms(randomize(Sly()), [InputSpec((2, 8, 4, 4))]).report
    assert [fate.norm for fate in report.folded] == ["bn_a"]
    assert [fate.norm for fate in report.left] == ["bn_b"]
    assert "taken back" in report.left[0].reason


def test_a_module_that_casts_is_still_checked_in_float64() -> None:
    class Casting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bn(self.conv(x.float())).to(torch.float32) + torch.ones(8, 1, 1)

    torch.manual_seed(0)
    report = fold_norms(randomize(Casting()), [InputSpec((2, 8, 4, 4))]).report
    assert len(report.folded) == 1
    assert report.relative_error is not None
    assert report.relative_error < 1e-13


def test_statistics_that_are_not_finite() -> None:
    module = build(CASES[0])
    module[1].running_var.fill_(float("inf"))
    report = fold_norms(module, [InputSpec(CASES[0].dims)]).report
    assert "not finite" in report.left[0].reason


def test_weights_that_would_overflow_half_precision() -> None:
    module = build(CASES[0]).half()
    module[1].weight.data.fill_(6e4)
    module[1].running_var.fill_(1e-3)
    report = fold_norms(module, [InputSpec(CASES[0].dims, dtype="float16")]).report
    assert "not finite in torch.float16" in report.left[0].reason


def test_copies_of_parametrized_modules_do_not_share_their_weight() -> None:
    """Removing a parametrization deletes a property of a class that deepcopy shares."""
    case = next(case for case in CASES if case.name == "weight_norm")
    module = build(case)
    fold_norms(module, [InputSpec(case.dims)])
    fold_norms(module, [InputSpec(case.dims)])
    assert module[0].weight.shape == (8, 8, 3, 3)
