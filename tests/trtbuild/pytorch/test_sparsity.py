"""The 2:4 pattern: its axis, training keeps it, and the exported file has it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tests.trtbuild.pytorch.fold_cases import randomize  # noqa: E402
from trtbuild.errors import OptionError  # noqa: E402
from trtbuild.pytorch import InputSpec, export_onnx  # noqa: E402
from trtbuild.pytorch.copies import make_weights_plain  # noqa: E402
from trtbuild.pytorch.prune import mask_weights  # noqa: E402
from trtbuild.pytorch.sparsity import check_two_four, make_two_four, two_four_mask  # noqa: E402


@pytest.mark.parametrize(("shape", "axis"), [((6, 8, 3, 3), 1), ((8, 6, 3, 3), 0), ((5, 12), 1)])
def test_the_mask_keeps_the_two_largest_of_four(shape: tuple[int, ...], axis: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    mask = two_four_mask(weight, axis)
    moved, chosen = np.moveaxis(weight.numpy(), axis, -1), np.moveaxis(mask.numpy(), axis, -1)
    for place in np.ndindex(*moved.shape[:-1]):
        for start in range(0, moved.shape[-1], 4):
            four = np.abs(moved[place][start : start + 4])
            kept = chosen[place][start : start + 4]
            assert kept.sum() == 2
            assert four[kept == 1].min() >= four[kept == 0].max()


def test_ties_are_two_of_four() -> None:
    assert (two_four_mask(torch.zeros(2, 8), 1).reshape(-1, 4).sum(1) == 2).all()


class Net(nn.Module):
    """All kinds of layers; the linear one works on three axes, so that it becomes a MatMul."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.conv, self.bn = (
            nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False),
            nn.BatchNorm2d(16),
        )
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.tokens, self.out = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.depthwise(self.bn(self.conv(self.first(x)))))
        return self.out(self.tokens(x.flatten(2).transpose(1, 2)).mean(1))


def test_eligible_layers() -> None:
    found = {layer.path: layer for layer in make_two_four(Net())}
    assert {path for path, layer in found.items() if layer.sparse} == {
        "conv",
        "up",
        "tokens",
        "out",
    }
    assert "3 input channels cannot be divided by 4" in found["first"].reason
    assert "depthwise" in found["depthwise"].reason
    assert not any(layer.worth for layer in found.values())
    large = nn.Sequential(nn.Conv2d(256, 512, 1), nn.Linear(255, 512))
    assert [layer.worth for layer in make_two_four(large)] == [True, False]


def test_the_file_has_the_pattern_in_every_kind_of_node() -> None:
    torch.manual_seed(0)
    module = randomize(Net())
    make_two_four(module)
    result = export_onnx(module, [InputSpec((2, 3, 8, 8))])
    nodes = {node.node: node for node in check_two_four(result.model)}
    assert {name: node.op_type for name, node in nodes.items() if node.holds} == {
        "conv": "Conv", "up": "ConvTranspose", "tokens": "MatMul", "out": "Gemm",
    }  # fmt: skip
    assert nodes["conv"].zero_share == pytest.approx(0.5)
    assert not nodes["first"].holds
    assert [fate.norm for fate in result.fold.folded] == ["bn"]  # folding keeps zeros


def test_int8_rounding_keeps_the_pattern() -> None:
    module = Net()
    make_two_four(module)
    make_weights_plain(module)
    weight = module.conv.weight.detach().numpy()
    scale = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
    rounded = np.rint(weight / scale) * scale
    fours = np.moveaxis(rounded, 1, -1).reshape(-1, 4)
    assert ((fours != 0).sum(1) <= 2).all()


def test_the_pattern_holds_through_training() -> None:
    module = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    make_two_four(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.randn(4, 16)).square().sum().backward()
        optimizer.step()
    make_weights_plain(module)
    for layer in (module[0], module[2]):
        assert ((layer.weight.reshape(-1, 4) != 0).sum(1) == 2).all()


def test_on_top_of_a_mask() -> None:
    module = nn.Sequential(nn.Linear(16, 16))
    mask_weights(module, 0.75)
    make_two_four(module)
    make_weights_plain(module)
    assert (module[0].weight == 0).float().mean() >= 0.75
    assert ((module[0].weight.reshape(-1, 4) != 0).sum(1) <= 2).all()


def test_nothing_eligible() -> None:
    with pytest.raises(OptionError, match="no layer can be 2:4 sparse: '0': its 3 input channels"):
        make_two_four(nn.Sequential(nn.Conv2d(3, 8, 3)))
    odd = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    with pytest.raises(OptionError, match="its weight is computed"):
        make_two_four(nn.Sequential(odd))


def test_a_dense_file_is_told_apart() -> None:
    weight = ir.tensor(np.ones((8, 4), np.float32))
    result = export_onnx(nn.Linear(4, 8), [InputSpec((2, 4))])
    node = next(node for node in result.model.graph if node.op_type == "Gemm")
    node.inputs[1].const_value = weight
    assert [(found.holds, found.zero_share) for found in check_two_four(result.model)] == [
        (False, 0.0)
    ]
