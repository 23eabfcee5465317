"""Small networks, one for each condition under which a norm can or cannot be folded."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn
from torch.nn.utils import parametrizations, prune

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CASES", "Case", "randomize"]


@dataclass(frozen=True)
class Case:
    """A network, its input, and the expected result for its norms.

    `folded` counts the norms that the module loses, `in_graph` those that the graph passes fold later;
    `reason` is a part of the report's reason for those that stay.
    """

    name: str
    build: Callable[[], nn.Module]
    dims: tuple[int, ...] = (2, 8, 10, 10)
    folded: int = 1
    left: int = 0
    in_graph: int = 0
    reason: str = ""
    exports: bool = True


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every norm statistics, scale and shift far from the identity."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._NormBase):
            if child.running_mean is not None:
                draw(child.running_mean, -1, 1)
                draw(child.running_var, 0.3, 3)
            if child.weight is not None:
                draw(child.weight, -2, 2)
                draw(child.bias, -1, 1)
    return module.eval()


class Net(nn.Module):
    """Named layers with a function as their forward."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, **{"padding": 1, **options})


def after(layer: nn.Module, norm: nn.Module | None = None) -> Callable[[], nn.Module]:
    return lambda: copy.deepcopy(nn.Sequential(layer, norm or nn.BatchNorm2d(8)))


def forward_net(forward: Callable[..., Any], **layers: nn.Module) -> Callable[[], nn.Module]:
    given = layers or {"conv": conv(), "bn": nn.BatchNorm2d(8)}
    return lambda: Net(forward, **copy.deepcopy(given))


class OwnForwardConv(nn.Conv2d):
    """A Conv2d that standardises its weight in its own forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class DoublingNorm(nn.BatchNorm2d):
    """A BatchNorm with an additional operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class SilentNorm(nn.BatchNorm2d):
    """A BatchNorm subclass that keeps BatchNorm's forward."""


class Frozen(nn.BatchNorm2d):
    """A norm that refuses eval mode."""

    def train(self, mode: bool = True) -> Frozen:
        return super().train(True)


def tied() -> nn.Module:
    first, second = conv(), conv()
    second.weight = first.weight
    return Net(lambda m, x: m.bn(m.a(x)) + m.b(x), a=first, b=second, bn=nn.BatchNorm2d(8))


def one_norm_two_convs() -> nn.Module:
    return Net(lambda m, x: m.bn(m.a(x)) + m.bn(m.b(x)), a=conv(), b=conv(), bn=nn.BatchNorm2d(8))


def shared_conv_two_norms() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.bn1(m.conv(x)) + m.bn2(m.conv(x * 0.5))

    return Net(forward, conv=conv(), bn1=nn.BatchNorm2d(8), bn2=nn.BatchNorm2d(8))


def hooked(where: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        net = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU())
        net[0 if where == "conv" else 1].register_forward_hook(lambda _m, _i, out: out * 2 + 1)
        return net

    return build


def with_utility(apply: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layer = conv()
        apply(layer)
        return nn.Sequential(layer, nn.BatchNorm2d(8))

    return build


def data_chooses() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        return m.bn1(y) if x.sum() > 0 else m.bn2(y)

    return Net(forward, conv=conv(), bn1=nn.BatchNorm2d(8), bn2=nn.BatchNorm2d(8))


def data_chooses_branch() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return m.b(y) if y.mean() > 0 else m.c(y)

    return Net(
        forward,
        a=nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU()),
        b=nn.Sequential(conv(), nn.BatchNorm2d(8)),
        c=nn.Sequential(conv(), nn.ReLU()),
    )


def picked_apart() -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a[0](x)
        return m.a[1](y) + y if x.sum() > 0 else m.a[1](y) - y

    return Net(forward, a=nn.Sequential(conv(), nn.BatchNorm2d(8)))


def functional(training: bool = False) -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(m.conv(x), m.mean, m.var, training=training)

    net = Net(forward, conv=conv())
    net.register_buffer("mean", torch.rand(8))
    net.register_buffer("var", torch.rand(8) + 0.5)
    return net


def in_train_mode() -> nn.Module:
    return nn.Sequential(conv(), Frozen(8))


def overwritten(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    y.add_(1)
    return m.bn(y)


def view_overwritten(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    half = y[:, :4]
    half.mul_(2)
    return m.bn(y)


def norm_input_overwritten(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x + 1
    y = m.bn(x)
    x.relu_()
    return m.conv(y) + x.mean()


def used_elsewhere(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    return m.bn(y) + y


def returned_as_well(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = m.conv(x)
    return m.bn(y), y


def norm_read_elsewhere(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.bn(m.conv(x)) + m.bn.running_mean.sum()


def weight_read_elsewhere(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.bn(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1)


def _vector(layer: nn.Module, norm: nn.Module) -> dict[str, nn.Module]:
    return {"fc": layer, "bn": norm}


CASES = [
    Case("conv", after(conv())),
    Case("conv without bias", after(conv(bias=False))),
    Case("dilation", after(conv(dilation=2, padding=2))),
    Case("stride", after(conv(stride=2))),
    Case("circular padding", after(conv(padding_mode="circular"))),
    Case("same padding", after(conv(padding="same"))),
    Case("groups", after(conv(groups=2))),
    Case("depthwise", after(conv(groups=8))),
    Case("conv1d", after(nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8)), (2, 8, 12)),
    Case("conv3d", after(nn.Conv3d(8, 8, 3), nn.BatchNorm3d(8)), (2, 8, 5, 5, 5)),
    Case("transposed", after(nn.ConvTranspose2d(8, 8, 3, stride=2))),
    Case("transposed with groups", after(nn.ConvTranspose2d(8, 12, 3, groups=4), nn.BatchNorm2d(12))),
    Case("transposed 1d", after(nn.ConvTranspose1d(8, 8, 3), nn.BatchNorm1d(8)), (2, 8, 12)),
    Case("transposed 3d", after(nn.ConvTranspose3d(8, 8, 2), nn.BatchNorm3d(8)), (2, 8, 4, 4, 4)),
    Case("linear", after(nn.Linear(8, 6), nn.BatchNorm1d(6)), (3, 8)),
    Case("linear without affine", after(nn.Linear(8, 6), nn.BatchNorm1d(6, affine=False)), (3, 8)),
    Case(
        "linear on N, L, C with L == C",
        after(nn.Linear(8, 8), nn.BatchNorm1d(8)),
        (2, 8, 8),
        folded=0,
        left=1,
        reason="normalizes axis 1",
    ),
    Case(
        "linear, transpose, norm",
        forward_net(
            lambda m, x: m.bn(m.fc(x).transpose(1, 2)), **_vector(nn.Linear(8, 6), nn.BatchNorm1d(6))
        ),
        (2, 5, 8),
    ),
    Case(
        "norm before a conv with zero padding",
        lambda: nn.Sequential(nn.BatchNorm2d(8), conv()),
        folded=0,
        left=1,
        reason="pads with zeros",
    ),
    Case("norm before an unpadded conv", lambda: nn.Sequential(nn.BatchNorm2d(8), conv(padding=0))),
    Case(
        "norm before a grouped unpadded conv",
        lambda: nn.Sequential(nn.BatchNorm2d(8), conv(padding=0, groups=4, bias=False)),
    ),
    Case(
        "norm before a reflecting conv",
        lambda: nn.Sequential(nn.BatchNorm2d(8), conv(padding_mode="reflect")),
    ),
    Case("norm before a linear", lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)), (3, 8)),
    Case("two norms before a conv", lambda: nn.Sequential(
        nn.BatchNorm2d(8), nn.BatchNorm2d(8), conv(padding=0)), folded=2),
    Case(
        "norm before a transposed conv",
        lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 8, 3)),
        folded=0,
        left=1,
        reason="transposed convolution",
    ),
    Case(
        "conv, relu, norm",
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(8)),
        folded=0,
        left=1,
        reason="'relu' in '1' before it is not a layer",
    ),
    Case("one conv, two norms", shared_conv_two_norms, folded=0, left=2, in_graph=2,
         reason="called several times"),
    Case(
        "one conv, with a norm and bare",
        forward_net(lambda m, x: m.bn(m.conv(x)) + m.conv(x * 2)),
        folded=0,
        left=1,
        in_graph=1,
        reason="called several times",
    ),
    Case("conv and norm called twice", forward_net(lambda m, x: m.bn(m.conv(m.bn(m.conv(x)))))),
    Case("one norm after two convs", one_norm_two_convs),
    Case("tied weights", tied),
    Case(
        "conv output used elsewhere",
        forward_net(used_elsewhere),
        folded=0,
        left=1,
        reason="also used elsewhere",
    ),
    Case(
        "conv output returned",
        forward_net(returned_as_well),
        folded=0,
        left=1,
        reason="also used elsewhere",
    ),
    Case("in-place relu between", lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), nn.BatchNorm2d(8)),
         folded=0, left=1, reason="'relu' in '1'"),
    Case("in-place write between", forward_net(overwritten), folded=0, left=1, reason="'add' before it"),
    Case("write through a view", forward_net(view_overwritten), folded=0, left=1,
         reason="also used elsewhere"),
    Case("norm input overwritten", forward_net(norm_input_overwritten, conv=conv(padding=0),
         bn=nn.BatchNorm2d(8)), folded=0, left=1, reason="overwritten"),
    Case("no affine", after(conv(), nn.BatchNorm2d(8, affine=False))),
    Case(
        "no running statistics",
        after(conv(), nn.BatchNorm2d(8, track_running_stats=False)),
        folded=0,
        left=1,
        reason="statistics of the batch",
    ),
    Case("functional with batch statistics", lambda: functional(training=True), folded=0, left=1,
         reason="functional"),
    Case("norm in train mode", in_train_mode, folded=0, left=1, reason="train mode", exports=False),
    Case("functional", functional, folded=0, left=1, in_graph=1, reason="functional call"),
    Case("keyword call", forward_net(lambda m, x: m.bn(input=m.conv(input=x)))),
    Case("dropout and identity between", lambda: nn.Sequential(
        conv(), nn.Dropout(), nn.Identity(), nn.Dropout2d(inplace=True), nn.BatchNorm2d(8))),
    Case("flatten between", forward_net(lambda m, x: m.bn(m.conv(x).flatten(2)), conv=conv(),
         bn=nn.BatchNorm1d(8))),
    Case("reshape that mixes channels", forward_net(
        lambda m, x: m.bn(m.conv(x).reshape(x.shape[0], 4, -1)), conv=conv(), bn=nn.BatchNorm1d(4)),
        folded=0, left=1, reason="mixed with others"),
    Case("conv, norm, norm", lambda: nn.Sequential(conv(), nn.BatchNorm2d(8), nn.BatchNorm2d(8)), folded=2),
    Case("norm, conv, norm", lambda: nn.Sequential(
        nn.BatchNorm2d(8), conv(padding=0), nn.BatchNorm2d(8)), folded=2),
    Case("conv with its own forward", after(OwnForwardConv(8, 8, 3)), folded=0, left=1, in_graph=1,
         reason="OwnForwardConv"),
    Case("norm with its own forward", after(conv(), DoublingNorm(8)), folded=0, left=1, in_graph=1,
         reason="DoublingNorm"),
    Case("norm subclass", after(conv(), SilentNorm(8))),
    Case("weight_norm", with_utility(parametrizations.weight_norm)),
    Case("spectral_norm", with_utility(parametrizations.spectral_norm)),
    Case("old weight_norm", with_utility(torch.nn.utils.weight_norm)),
    Case("old spectral_norm", with_utility(torch.nn.utils.spectral_norm)),
    Case("pruning mask", with_utility(lambda m: prune.l1_unstructured(m, "weight", 0.5))),
    Case("hook that changes the conv", hooked("conv"), folded=0, left=1, reason="not a layer"),
    Case("hook that changes the norm", hooked("norm"), folded=0, left=1, in_graph=1,
         reason="forward hook"),
    Case("data chooses the norm", data_chooses, folded=0, left=2, reason="cannot be traced",
         exports=False),
    Case("data chooses the branch", data_chooses_branch, folded=2, exports=False),
    Case("Sequential picked apart by data", picked_apart, folded=0, left=1, reason="outside",
         exports=False),
    Case("SyncBatchNorm", after(conv(), nn.SyncBatchNorm(8))),
    Case("InstanceNorm with statistics", after(conv(), nn.InstanceNorm2d(
        8, affine=True, track_running_stats=True))),
    Case("InstanceNorm without statistics", after(conv(), nn.InstanceNorm2d(8)), folded=0, left=1,
         reason="statistics of the batch"),
    Case("norm read elsewhere", forward_net(norm_read_elsewhere), folded=0, left=1, in_graph=1,
         reason="parameters are also used"),
    Case("weight read elsewhere", forward_net(weight_read_elsewhere), folded=0, left=1, in_graph=1,
         reason="outside of it"),
]  # fmt: skip
