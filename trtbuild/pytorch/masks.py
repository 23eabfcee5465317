"""Masks over single weights or slices of weights, for fine-tuning.

A mask keeps its zeros during fine-tuning; `make_masks_permanent` (or the export) makes them ordinary
zeros. Zeros alone make a network neither smaller nor faster: for that remove channels
(`trtbuild.pytorch.prune.channels`) or use the 2:4 pattern (`trtbuild.pytorch.sparsity`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import prune

from trtbuild.errors import OptionError
from trtbuild.pytorch.copies import computed_weights
from trtbuild.pytorch.layers import LAYERS, match_layers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "LayerSparsity",
    "SparsityReport",
    "is_masked",
    "make_masks_permanent",
    "mask_globally",
    "mask_slices",
    "mask_weights",
    "sparsity_report",
]


@dataclass(frozen=True)
class LayerSparsity:
    """Zeros in one parameter."""

    name: str
    num_zeros: int
    num_values: int

    @property
    def share(self) -> float:
        """Share of zeros, 0 to 1."""
        return self.num_zeros / self.num_values if self.num_values else 0.0


@dataclass(frozen=True)
class SparsityReport:
    """Zeros per layer and in total."""

    layers: tuple[LayerSparsity, ...]

    @property
    def total(self) -> LayerSparsity:
        """Zeros in all listed parameters."""
        zeros = sum(layer.num_zeros for layer in self.layers)
        return LayerSparsity("total", zeros, sum(layer.num_values for layer in self.layers))


def mask_weights(
    module: nn.Module,
    amount: float | None = None,
    *,
    method: str | type[prune.BasePruningMethod] = "l1",
    layers: Sequence[str] = ("*",),
    parameter: str = "weight",
) -> SparsityReport:
    """Mask single weights in every matching layer, in place.

    Args:
        module: the module.
        amount: a share (float) or a count (int) per layer; a second call masks that much of the rest. None
            only for a method without an amount.
        method: ``l1`` (the smallest magnitudes), ``random``, or a class of your own, whose ``apply`` gets the
            amount if it takes one.
        layers: patterns of layer paths.
        parameter: name of the parameter.

    Raises:
        OptionError: no layer matches, none has the parameter, or the amount is out of range.
    """
    for path, layer in match_layers(module, layers, LAYERS).items():
        _check_parameter(path, layer, parameter)
        if isinstance(method, type) and not _takes_amount(method):
            method.apply(layer, parameter)
            continue
        amount = _check_amount(amount, getattr(layer, parameter).numel(), path)
        if method == "l1":
            prune.l1_unstructured(layer, parameter, amount)
        elif method == "random":
            prune.random_unstructured(layer, parameter, amount)
        elif isinstance(method, type):
            method.apply(layer, parameter, amount)
        else:
            raise OptionError(f"mask method '{method}' is not l1, random, or a BasePruningMethod.")
    return sparsity_report(module, parameter)


def mask_slices(
    module: nn.Module,
    amount: float,
    *,
    method: str = "ln",
    n: float = 2,
    dim: int = 0,
    layers: Sequence[str] = ("*",),
    parameter: str = "weight",
) -> SparsityReport:
    """Mask whole slices along an axis (output channels for `dim` 0), in place.

    Args:
        module: the module.
        amount: share or count of the slices per layer.
        method: ``ln`` (the smallest norms) or ``random``.
        n: order of the norm: 1, 2, ``inf``, ``-inf`` or 0.
        dim: the axis whose slices are masked.
        layers: patterns of layer paths.
        parameter: name of the parameter.

    Raises:
        OptionError: as in `mask_weights`; or the axis or norm does not exist.
    """
    if method not in ("ln", "random") or not isinstance(n, int | float):
        raise OptionError(
            f"slices are masked by 'ln' with a number n, or 'random'; not '{method}', {n}."
        )
    for path, layer in match_layers(module, layers, LAYERS).items():
        _check_parameter(path, layer, parameter)
        tensor = getattr(layer, parameter)
        if not -tensor.dim() <= dim < tensor.dim():
            raise OptionError(
                f"'{path}.{parameter}' has {counted(tensor.dim(), 'axis', 'axes')}; there is no axis {dim}."
            )
        _check_amount(amount, tensor.shape[dim], path)
        if method == "ln":
            prune.ln_structured(layer, parameter, amount, n=n, dim=dim)
        else:
            prune.random_structured(layer, parameter, amount, dim=dim)
    return sparsity_report(module, parameter)


def mask_globally(
    module: nn.Module,
    amount: float | None = None,
    *,
    method: str | type[prune.BasePruningMethod] = "l1",
    layers: Sequence[str] = ("*",),
    parameter: str = "weight",
    scores: Mapping[str, torch.Tensor] | None = None,
) -> SparsityReport:
    """Rank the weights of all matching layers together and mask the lowest, in place.

    Args:
        module: the module.
        amount: share or count of all weights together. None only for a method without an amount.
        method: ``l1``, ``random``, or a class of your own with ``PRUNING_TYPE = "unstructured"``.
        layers: patterns of layer paths.
        parameter: name of the parameter.
        scores: layer path -> importance of each weight, of the weight's shape; default: magnitudes.

    Raises:
        OptionError: as in `mask_weights`; or the method masks slices; or the scores do not fit.
    """
    chosen = match_layers(module, layers, LAYERS)
    for path, layer in chosen.items():
        _check_parameter(path, layer, parameter)
    kinds = {"l1": prune.L1Unstructured, "random": prune.RandomUnstructured}
    kind = kinds.get(method) if isinstance(method, str) else method
    if kind is None or kind.PRUNING_TYPE != "unstructured":
        raise OptionError(
            "global masks need l1, random, or a method with PRUNING_TYPE 'unstructured'."
        )
    options = {}
    if isinstance(method, str) or _takes_amount(kind):
        options["amount"] = _check_amount(
            amount, sum(getattr(m, parameter).numel() for m in chosen.values()), "all layers"
        )
    given = {}
    for path, tensor in (scores or {}).items():
        if path not in chosen or tensor.shape != getattr(chosen[path], parameter).shape:
            raise OptionError(
                f"the scores of '{path}' do not belong to a chosen layer of that shape."
            )
        given[chosen[path], parameter] = tensor
    pairs = [(layer, parameter) for layer in chosen.values()]
    prune.global_unstructured(pairs, kind, importance_scores=given or None, **options)
    return sparsity_report(module, parameter)


def is_masked(module: nn.Module) -> bool:
    """Return whether any parameter has a mask."""
    return bool(prune.is_pruned(module))


def make_masks_permanent(module: nn.Module) -> list[str]:
    """Turn the zeros of every mask into ordinary ones, in place; the masked values are lost.

    The next optimizer step changes them: do this after fine-tuning.

    Returns:
        The names of the parameters.
    """
    masked = [found for found in computed_weights(module) if found[3] == "mask"]
    for _, layer, name, _ in masked:
        prune.remove(layer, name)
    return [f"{path}.{name}".lstrip(".") for path, _, name, _ in masked]


def sparsity_report(module: nn.Module, parameter: str = "weight") -> SparsityReport:
    """Count the zeros of every layer's parameter, including masked values."""
    found = []
    for path, layer in module.named_modules():
        tensor = getattr(layer, parameter, None)
        if isinstance(layer, LAYERS) and isinstance(tensor, torch.Tensor):
            mask = getattr(layer, f"{parameter}_mask", None)
            # The attribute dates from the last forward; original times mask is its next value.
            value = tensor if mask is None else getattr(layer, f"{parameter}_orig") * mask
            found.append(LayerSparsity(path, int((value == 0).sum()), value.numel()))
    return SparsityReport(tuple(found))


def _check_parameter(path: str, layer: nn.Module, parameter: str) -> None:
    if not isinstance(getattr(layer, parameter, None), torch.Tensor):
        raise OptionError(f"'{path}' ({type(layer).__name__}) has no parameter '{parameter}'.")


def _takes_amount(method: type[prune.BasePruningMethod]) -> bool:
    """Whether a user's method takes an amount, in its ``apply`` or else its constructor."""
    own = method.apply.__func__ is not prune.BasePruningMethod.apply.__func__
    given = list(inspect.signature(method.apply if own else method.__init__).parameters.values())
    if own and any(one.kind is one.VAR_POSITIONAL for one in given):
        given = [*inspect.signature(method.__init__).parameters.values()]
        own = False
    names = [one for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(names) > (2 if own else 1)  # besides module and name, or besides self


def _check_amount(amount: float | None, available: int, where: str) -> float:
    if amount is None:
        raise OptionError("say how much is masked: a share (0.3) or a count (12).")
    limit = 1 if isinstance(amount, float) else available
    if not 0 <= amount <= limit:
        raise OptionError(
            f"amount {amount} is out of range for {where}: a share up to 1.0 or a count up to {available}."
        )
    return amount
