"""Rounds each weight to INT8 once: many candidates of a search share the same tensor."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trtbuild.machine import usable_cpus
from trtbuild.model.constants import constant_tensor
from trtbuild.model.graph_library import ir
from trtbuild.model.mapped_pages import give_back
from trtbuild.model.stored_weights import in_file_by_blocks
from trtbuild.quantization.weights import quantize_weight, steps_by_blocks, weight_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

__all__ = ["of_each_weight", "own_scales", "rounded"]

Item = TypeVar("Item")
Found = TypeVar("Found")

_KNOWN: weakref.WeakKeyDictionary[ir.TensorProtocol, dict[Hashable, object]] = (
    weakref.WeakKeyDictionary()
)


def of_each_weight(find: Callable[[Item], Found], items: Mapping[Item, ir.Value]) -> list[Found]:
    """Return ``find(item)`` for each item; on all cores if any weight is in a file.

    Args:
        find: called once per item.
        items: item -> the weight that `find` reads.
    """
    tensors = [constant_tensor(weight) for weight in items.values()]
    if not any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        return [find(item) for item in items]
    for tensor in tensors:
        if tensor is not None:
            tensor.numpy()  # maps the file now, in one thread; onnx_ir does so at the first access
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return list(pool.map(find, items))


def own_scales(weight: ir.Value, axis: int | None) -> np.ndarray:
    """Return the scales of a constant, see `trtbuild.quantization.weights.weight_scales`.

    Raises:
        ModelError: the constant holds NaN or infinity.
    """
    return _once(
        weight, ("scales", axis), lambda t: weight_scales(t.numpy(), axis, weight.name or "")
    )


def rounded(weight: ir.Value, scales: np.ndarray, axis: int | None) -> ir.TensorProtocol:
    """Return a constant rounded to int8 with these scales; if it is in a file, the result is, too."""

    def find(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        content = tensor.numpy()
        if isinstance(tensor, ir.ExternalTensor):
            blocks = steps_by_blocks(content, scales, axis)
            return in_file_by_blocks(blocks, content.shape, np.dtype(np.int8), tensor.name)
        return ir.Tensor(quantize_weight(content, scales, axis), name=tensor.name)

    return _once(weight, ("steps", axis, scales.tobytes()), find)


def _once(weight: ir.Value, what: Hashable, find: Callable[[ir.TensorProtocol], Found]) -> Found:
    """``find(tensor)`` for a constant's tensor; the result is kept as long as the tensor."""
    tensor = constant_tensor(weight)
    assert tensor is not None
    known = _KNOWN.setdefault(tensor, {})
    if what not in known:
        known[what] = find(tensor)
        give_back([tensor])
    found: Found = known[what]  # type: ignore[assignment]
    return found
