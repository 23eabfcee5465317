"""Weights rounded to INT8 once: the same weight in many candidates of a search is one tensor."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar

from trtbuild.model.constants import constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.stored_weights import in_file
from trtbuild.quantization.weights import quantize_weight, weight_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np

__all__ = ["own_scales", "rounded"]

Found = TypeVar("Found")

_KNOWN: weakref.WeakKeyDictionary[ir.TensorProtocol, dict[Hashable, object]] = (
    weakref.WeakKeyDictionary()
)


def own_scales(weight: ir.Value, axis: int | None) -> np.ndarray:
    """Return the scales of a constant, see `trtbuild.quantization.weights.weight_scales`.

    Raises:
        ModelError: it holds NaN or infinity.
    """
    return _once(
        weight, ("scales", axis), lambda t: weight_scales(t.numpy(), axis, weight.name or "")
    )


def rounded(weight: ir.Value, scales: np.ndarray, axis: int | None) -> ir.TensorProtocol:
    """Return a constant in int8 steps of `scales`; that of a weight in a file lies in one, too."""

    def find(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        steps = quantize_weight(tensor.numpy(), scales, axis)
        if isinstance(tensor, ir.ExternalTensor):
            return in_file(steps, tensor.name)
        return ir.Tensor(steps, name=tensor.name)

    return _once(weight, ("steps", axis, scales.tobytes()), find)


def _once(weight: ir.Value, what: Hashable, find: Callable[[ir.TensorProtocol], Found]) -> Found:
    """What `find` says of the tensor behind a constant, which it is asked once."""
    tensor = constant_tensor(weight)
    assert tensor is not None
    known = _KNOWN.setdefault(tensor, {})
    if what not in known:
        known[what] = find(tensor)
        give_back([tensor])
    found: Found = known[what]  # type: ignore[assignment]
    return found
