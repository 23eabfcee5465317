"""How channels are ranked: Torch-Pruning's importances by name, and the gradients that some of them need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp

from trtbuild.errors import OptionError
from trtbuild.plugins import foreign_code, import_named
from trtbuild.pytorch.spec import CRITERIA, CRITERIA_BY_LOSS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from trtbuild.pytorch.spec import PruneSpec

    Loss = Callable[[nn.Module], torch.Tensor]

__all__ = ["accumulate", "importance_of", "needed_loss"]

_MOST_BACKWARDS = 64
"""The most backward passes for gradients of single samples."""


class _Hessian(tp.importance.GroupHessianImportance):  # type: ignore[misc]  # the library has no types
    """Torch-Pruning's Hessian importance; its own sum keeps only the last sample."""

    def accumulate_grad(self, model: nn.Module) -> None:
        """Add the squared gradients of one sample."""
        for one in model.parameters():
            if one.grad is not None:
                self._accu_grad[one] = self._accu_grad.get(one, 0) + one.grad.square()
                self._counter[one] = self._counter.get(one, 0) + 1


_IMPORTANCES: dict[str, Callable[[], Any]] = {
    # Sum of magnitudes, and Euclidean norm, of a channel's weights (Li et al. 2017, arXiv 1608.08710).
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    # The norm's scale (Liu et al. 2017, arXiv 1708.06519): only for channels with a norm.
    "bn-scale": tp.importance.BNScaleImportance,
    # Magnitude relative to the layer's remaining channels (Lee et al. 2021, arXiv 2010.07611).
    "lamp": lambda: tp.importance.LAMPImportance(p=2),
    # Distance to the geometric median of the filters (He et al. 2019, arXiv 1811.00250).
    "fpgm": lambda: tp.importance.FPGMImportance(p=2),
    # Gradient times weight (Molchanov et al. 2019, arXiv 1906.10771): needs a loss.
    "taylor": tp.importance.GroupTaylorImportance,
    # The same with the squared gradients of every sample as the curvature (LeCun et al. 1989).
    "hessian": _Hessian,
    "random": tp.importance.RandomImportance,
}
assert set(_IMPORTANCES) == {*CRITERIA}


def importance_of(criterion: str) -> Any:
    """Return the function that ranks a group of Torch-Pruning by this criterion."""
    return _IMPORTANCES[criterion]()


def needed_loss(spec: PruneSpec) -> Loss | None:
    """Return the loss that `spec` names, with its results checked; None if its criterion needs none.

    Raises:
        OptionError: the criterion needs a loss, and none is named, or it cannot be imported.
    """
    if spec.criterion not in CRITERIA_BY_LOSS:
        return None
    if spec.loss is None:
        raise OptionError(
            f"the criterion '{spec.criterion}' ranks by gradients and needs a loss: --prune-loss "
            "package:function, which takes the module and returns its loss on your data."
        )
    given = import_named(spec.loss, OptionError)

    def loss(module: nn.Module) -> torch.Tensor:
        with foreign_code(OptionError, f"the loss '{spec.loss}' raised "):
            value = given(module)
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            raise OptionError(
                f"the loss '{spec.loss}' returned {type(value).__name__} without gradients; it should return "
                "a tensor, computed by the module that it is given (without torch.no_grad)."
            )
        return value

    return loss


def accumulate(module: nn.Module, importance: Any, loss: Loss | None) -> None:
    """Store the gradients of the user's loss in `module`, for criteria that rank by them.

    An importance that needs gradients per sample gets them for each value of the loss. Each takes a
    backward pass through the whole batch, so if there are many values, sums with random signs are used: the
    square of such a sum is on average the sum of the squares (Hutchinson 1990, doi
    10.1080/03610919008812866).

    Raises:
        OptionError: the loss has no value, or one that is not finite.
    """
    if loss is None:
        return
    module.zero_grad()
    value = loss(module)
    if not value.numel() or not bool(value.isfinite().all()):
        what = "a value that is not finite" if value.numel() else "no value"
        raise OptionError(f"the loss gave {what}, and channels cannot be ranked by it.")
    gather = getattr(importance, "accumulate_grad", None)
    if gather is None:
        value.mean().backward()
        return
    importance.zero_grad()
    values = value.reshape(-1)
    for signs in _signs(len(values)).to(values):
        module.zero_grad()
        (signs @ values).backward(retain_graph=True)
        gather(module)


def _signs(count: int) -> torch.Tensor:
    """Rows of factors for sums of `count` values: each value alone, or random signs if there are many."""
    if count <= _MOST_BACKWARDS:
        return torch.eye(count)
    generator = torch.Generator().manual_seed(0)
    return 2.0 * torch.randint(2, (_MOST_BACKWARDS, count), generator=generator) - 1
