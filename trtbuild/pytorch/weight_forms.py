"""Converts the weights of a file to plain tensors of a module: dense, with masks and weight norm applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trtbuild.errors import ModelError
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

__all__ = ["fitting_keys", "plain_weights", "with_computed"]

_ORIGINALS = ("parametrizations.{}.original0", "parametrizations.{}.original1")


def plain_weights(
    weights: Mapping[str, torch.Tensor], path: Path
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return dense, unquantized tensors, and sentences about those that were not.

    Raises:
        ModelError: a tensor has no values (device ``meta``), or cannot be made dense; the text names it.
    """
    plain: dict[str, torch.Tensor] = {}
    changed: dict[str, list[str]] = {}
    for key, value in weights.items():
        if value.device.type == "meta":
            raise ModelError(
                f"the tensor '{key}' in '{path}' has a shape and no values (device meta): save the weights "
                "after they were loaded."
            )
        kind = "quantized" if value.is_quantized else "sparse" if _is_sparse(value) else ""
        try:
            plain[key] = _dense(value)
        except Exception as error:
            raise ModelError(f"the tensor '{key}' in '{path}' cannot be read: {error}") from error
        if kind:
            changed.setdefault(kind, []).append(key)
    told = tuple(
        f"{len(keys)} {kind} tensors of the checkpoint were made dense ('{keys[0]}')"
        + (": they keep the rounding of their 8 bits." if kind == "quantized" else ".")
        for kind, keys in changed.items()
    )
    return plain, told


def _is_sparse(value: torch.Tensor) -> bool:
    return value.layout is not torch.strided


def _dense(value: torch.Tensor) -> torch.Tensor:
    if value.is_quantized:
        return value.dequantize()
    return value.to_dense() if _is_sparse(value) else value


def fitting_keys(wanted: Iterable[str]) -> frozenset[str]:
    """Return every key from which `with_computed` can make a wanted one, including the wanted keys."""
    found = set(wanted)
    for key in wanted:
        name = key.removesuffix("_g").removesuffix("_v").replace("parametrizations.", "", 1)
        name = name.removesuffix(".original0").removesuffix(".original1")
        found.update((f"{name}_orig", f"{name}_mask"))
        found.update(one for pair in _spellings(name) for one in pair)
    return frozenset(found)


def with_computed(
    weights: Mapping[str, torch.Tensor], wanted: Collection[str]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return `weights` in the form that a module needs: parts in the file become the module's whole tensors.

    A mask of ``torch.nn.utils.prune`` (``weight_orig``, ``weight_mask``) is multiplied in. Weight norm
    (``weight_g``, ``weight_v``, or ``parametrizations.weight.original0`` and ``1``) is computed, or renamed
    if the module has its other form.

    Returns:
        The weights, and sentences about what was computed.
    """
    found = dict(weights)
    masks, norms = [], []
    for key in weights:
        name = key.removesuffix("_orig")
        if name != key and f"{name}_mask" in found and name in wanted and key not in wanted:
            found[name] = found.pop(key) * found.pop(f"{name}_mask")
            masks.append(name)
    for name, (size, direction) in _weight_norms(weights).items():
        if size in wanted:
            continue
        pair = found.pop(size), found.pop(direction)
        other = next((one for one in _spellings(name) if one[0] in wanted), None)
        if other is not None:
            found.update(zip(other, pair))
        elif name in wanted:
            found[name] = _normed(*pair)
            norms.append(name)
        else:
            found.update({size: pair[0], direction: pair[1]})
    told = (("masks were multiplied into", masks), ("weight norm was evaluated in", norms))
    return found, tuple(
        f"{text} {counted(len(names), 'weight')} ('{names[0]}')." for text, names in told if names
    )


def _spellings(name: str) -> tuple[tuple[str, str], ...]:
    """Names of size and direction of a weight under weight norm, in the old form and the new."""
    owner, _, leaf = name.rpartition(".")
    dot = f"{owner}." if owner else ""
    new = tuple(dot + text.format(leaf) for text in _ORIGINALS)
    return (f"{name}_g", f"{name}_v"), (new[0], new[1])


def _weight_norms(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, str]]:
    """Name of each weight under weight norm -> keys of its size and its direction."""
    found = {}
    for key in weights:
        new = key.replace("parametrizations.", "", 1).removesuffix(".original0")
        for name in (key.removesuffix("_g"), new):
            for pair in _spellings(name):
                if key == pair[0] and pair[1] in weights and _is_norm(weights, pair):
                    found[name] = pair
    return found


def _is_norm(weights: Mapping[str, torch.Tensor], pair: tuple[str, str]) -> bool:
    """Whether the shapes fit weight norm: one size per slice, of the same rank."""
    size, direction = (weights[key].shape for key in pair)
    if not size:
        return True
    return len(size) == len(direction) and all(s in (1, d) for s, d in zip(size, direction))


def _normed(size: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """``g v / |v|``, with the norm over the axes along which `size` is one (Salimans, Kingma 2016)."""
    wide = direction.double()
    axes = [axis for axis in range(wide.ndim) if not size.ndim or size.shape[axis] == 1]
    length = wide.pow(2).sum(axes, keepdim=True).sqrt()
    return (size.double() * wide / length).to(direction.dtype)
