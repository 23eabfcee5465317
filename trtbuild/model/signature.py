"""Inputs and outputs of a network: names, dtypes, dims, and the batch axis of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

__all__ = [
    "BATCH_AXES",
    "NO_BATCH_AXIS",
    "Signature",
    "TensorSpec",
    "fixed_batch",
    "in_own_floats",
    "input_specs",
    "output_specs",
    "read_batch_axes",
    "say_batch_axes",
    "signature_as_said",
    "static_batch",
    "with_batch_axes",
]

NO_BATCH_AXIS = "none"
"""Stands for an axis: the tensor has no batch axis."""

BATCH_AXES = "trtbuild.batch_axes"
"""The key in a network file's metadata that holds the given batch axes, as JSON."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: its name.
        dtype: its NumPy dtype.
        dims: numbers; a name or None where dynamic.
        batch_axis: the index of the batch axis in `dims`; None where there is none.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str | None, ...]
    batch_axis: int | None = 0

    @property
    def batch(self) -> int | str | None:
        """The dim of the batch axis; None where there is no such axis, or its dim is unknown."""
        if self.batch_axis is None or self.batch_axis >= len(self.dims):
            return None
        return self.dims[self.batch_axis]

    @property
    def sample_dims(self) -> tuple[int | str | None, ...]:
        """The dims of one sample, without the batch axis."""
        if self.batch_axis is None:
            return self.dims
        return (*self.dims[: self.batch_axis], *self.dims[self.batch_axis + 1 :])


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a network."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def in_own_floats(
    feeds: Mapping[str, np.ndarray], inputs: Iterable[TensorSpec]
) -> dict[str, np.ndarray]:
    """Return `feeds` with floats cast to the types of `inputs`; what is too large becomes infinite."""
    own = {spec.name: spec.dtype for spec in inputs if spec.dtype.kind == "f"}
    with np.errstate(over="ignore"):  # as on a device
        return {
            name: np.asarray(array, own[name]) if name in own and array.dtype.kind == "f" else array
            for name, array in feeds.items()
        }


def input_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Return the inputs that a caller passes, without weights."""
    return _signature(model).inputs


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Return the outputs, in order."""
    return _signature(model).outputs


def static_batch(model: ir.Model) -> int | None:
    """Return `fixed_batch` of the network's inputs."""
    return fixed_batch(input_specs(model))


def fixed_batch(inputs: Iterable[TensorSpec]) -> int | None:
    """Return the batch size if all inputs agree on one number, or if one input fixes it to 1; else None.

    An input of batch 1 beside dynamic ones takes one sample per run, whatever the others take. Scalars and
    inputs without a batch axis do not count.
    """
    sizes = {spec.batch for spec in inputs if spec.dims and spec.batch_axis is not None}
    if 1 in sizes and not any(isinstance(size, int) and size != 1 for size in sizes):
        return 1
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def with_batch_axes(
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec] = (),
    said: Mapping[str, object] | None = None,
) -> Signature:
    """Return inputs and outputs with their batch axes: as given, by the name of the dim, or axis 0.

    The batch dim has the name that it has in inputs whose axis is given; else a name that contains "batch";
    else the name of any input's first dim. A tensor that has such a name first, or nowhere, keeps axis 0.

    Args:
        inputs: of a network.
        outputs: of the same network.
        said: tensor -> its given batch axis; `NO_BATCH_AXIS` says that it has none.
    """
    said = said or {}
    given = [_as_said(spec, said) for spec in inputs]
    named = {spec.batch for spec in given if spec.name in said}
    found = tuple(_by_name(spec, said, _names(given, named)) for spec in given)
    of_inputs = {spec.batch for spec in found}
    return Signature(
        found,
        tuple(_by_name(_as_said(spec, said), said, _texts(of_inputs)) for spec in outputs),
    )


def _as_said(spec: TensorSpec, said: Mapping[str, object]) -> TensorSpec:
    if spec.name not in said:
        return spec
    axis = said[spec.name]
    return replace(spec, batch_axis=axis if isinstance(axis, int) else None)


def _texts(dims: Iterable[int | str | None]) -> frozenset[str]:
    return frozenset(dim for dim in dims if isinstance(dim, str))


def _names(inputs: Sequence[TensorSpec], said: Iterable[int | str | None]) -> frozenset[str]:
    """The names that the batch dim may have."""
    everywhere = _texts(dim for spec in inputs for dim in spec.dims)
    telling = frozenset(name for name in everywhere if "batch" in name.lower())
    return _texts(said) or telling or _texts(spec.batch for spec in inputs)


def _by_name(spec: TensorSpec, said: Mapping[str, object], names: frozenset[str]) -> TensorSpec:
    if spec.name in said or spec.batch in names:
        return spec
    axes = [axis for axis, dim in enumerate(spec.dims) if dim in names]
    return replace(spec, batch_axis=axes[0]) if axes else spec


def say_batch_axes(model: ir.Model, said: Mapping[str, object]) -> None:
    """Write the given batch axes into a network's metadata, and so into its files.

    Raises:
        OptionError: a named input or output does not exist, or has no such axis.
    """
    if not said:
        return
    ranks = {
        value.name or "": None if value.shape is None else len(value.shape)
        for value in (*model.graph.inputs, *model.graph.outputs)
    }
    _check_said(ranks, said)
    before = read_batch_axes(model.metadata_props.get(BATCH_AXES))
    model.metadata_props[BATCH_AXES] = json.dumps({**before, **said}, sort_keys=True)


def signature_as_said(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], said: Mapping[str, object]
) -> Signature:
    """Return inputs and outputs with batch axes, for engines that are not ONNX; see `with_batch_axes`.

    Raises:
        OptionError: a named input or output does not exist, or has no such axis.
    """
    _check_said({spec.name: len(spec.dims) or None for spec in (*inputs, *outputs)}, said)
    return with_batch_axes(inputs, outputs, said)


def _check_said(ranks: Mapping[str, int | None], said: Mapping[str, object]) -> None:
    for name, axis in said.items():
        if name not in ranks:
            known = ", ".join(f"'{known}'" for known in ranks)
            raise OptionError(f"--batch-axis names '{name}'; the inputs and outputs are {known}.")
        rank = ranks[name]
        if isinstance(axis, int) and rank is not None and not 0 <= axis < rank:
            raise OptionError(
                f"--batch-axis says axis {axis} of '{name}', which has {counted(rank, 'axis', 'axes')}."
            )


def read_batch_axes(text: str | None) -> dict[str, object]:
    """Return the axes that `say_batch_axes` wrote; empty for any other text."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: axis for name, axis in found.items() if _is_axis(axis)}


def _is_axis(value: object) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value == NO_BATCH_AXIS or (is_number and 0 <= value < 64)  # type: ignore[operator]


def _signature(model: ir.Model) -> Signature:
    return with_batch_axes(
        _specs(model.graph.inputs),
        _specs(model.graph.outputs),
        read_batch_axes(model.metadata_props.get(BATCH_AXES)),
    )


def _specs(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(value.name or "", _dtype(value), _dims(value)) for value in values)


def _dtype(value: ir.Value) -> np.dtype[np.generic]:
    return np.dtype(value.dtype.numpy()) if value.dtype is not None else np.dtype(np.float32)


def _dims(value: ir.Value) -> tuple[int | str | None, ...]:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
