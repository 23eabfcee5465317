"""How channels are ranked: names and the importance behind each, from Torch-Pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch_pruning as tp

from trtbuild.errors import OptionError
from trtbuild.pytorch.spec import CRITERIA

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make_importance", "needs_gradients"]

_IMPORTANCES: dict[str, Callable[[], Any]] = {
    # Sum of magnitudes and Euclidean length of a channel's weights (Li et al. 2017, arXiv 1608.08710).
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    # The norm's scale (Liu et al. 2017, arXiv 1708.06519): only where channels have a norm.
    "bn-scale": tp.importance.BNScaleImportance,
    # Magnitude relative to what is left of the layer (Lee et al. 2021, arXiv 2010.07611).
    "lamp": lambda: tp.importance.LAMPImportance(p=2),
    # Distance to the geometric median of the filters (He et al. 2019, arXiv 1811.00250).
    "fpgm": lambda: tp.importance.FPGMImportance(p=2),
    # Gradient times weight (Molchanov et al. 2019, arXiv 1906.10771): needs a loss.
    "taylor": tp.importance.GroupTaylorImportance,
    "random": tp.importance.RandomImportance,
}
assert tuple(_IMPORTANCES) == CRITERIA


def make_importance(criterion: str) -> Any:
    """The importance of that name.

    Raises:
        OptionError: there is none.
    """
    if criterion not in _IMPORTANCES:
        raise OptionError(f"criterion '{criterion}' is not one of {', '.join(_IMPORTANCES)}.")
    return _IMPORTANCES[criterion]()


def needs_gradients(criterion: str) -> bool:
    """Whether the criterion ranks by gradients, and so needs the user's loss."""
    return criterion == "taylor"
