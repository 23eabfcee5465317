"""What a network takes and gives: names, dtypes, dims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

__all__ = ["TensorSpec", "fixed_batch", "input_specs", "output_specs", "static_batch"]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, NumPy dtype, and dims (int, or a name or None when dynamic)."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str | None, ...]


def input_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The inputs that a caller passes; weights are not among them."""
    return _specs(model.graph.inputs)


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """The outputs, in order."""
    return _specs(model.graph.outputs)


def static_batch(model: ir.Model) -> int | None:
    """`fixed_batch` of the network's inputs."""
    return fixed_batch(input_specs(model))


def fixed_batch(inputs: Iterable[TensorSpec]) -> int | None:
    """Size of axis 0 when every input fixes it to the same number, or one fixes it to 1; else None (dynamic).

    An input of batch 1 beside open ones takes one sample a run, whatever the others take.
    """
    sizes = {spec.dims[0] if spec.dims else None for spec in inputs}
    if 1 in sizes and not any(isinstance(size, int) and size != 1 for size in sizes):
        return 1
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def _specs(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(value.name or "", _dtype(value), _dims(value)) for value in values)


def _dtype(value: ir.Value) -> np.dtype[np.generic]:
    return np.dtype(value.dtype.numpy()) if value.dtype is not None else np.dtype(np.float32)


def _dims(value: ir.Value) -> tuple[int | str | None, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
