"""Derives the inputs of a module in memory from the first item of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbuild.data.callables import first_item, repeatable
from trtbuild.errors import OptionError
from trtbuild.pytorch.copies import unwrapped
from trtbuild.pytorch.inputs import Parameters
from trtbuild.pytorch.refusals import refuse_unfinished
from trtbuild.pytorch.spec import InputSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["inputs_of"]


def inputs_of(module: nn.Module, data: Any) -> tuple[tuple[InputSpec, ...], Any]:
    """Return the module's inputs, and the data, kept in memory if they can be read only once.

    Names are those of the parameters of ``forward`` without a default, or of its first; dims, dtypes and
    ranges those of the first item, whose first axis is the batch. An object with ``__getitem__`` that is not
    a list, tuple, dict or array (a dataset) gives single samples; all else gives batches. Pixels (uint8) and
    floats get the type of the module's parameters.

    Args:
        module: the network, or what ``torch.compile`` or ``DataParallel`` made of it.
        data: gives batches or samples; see `trtbuild.data.callables.CallableSource`.

    Raises:
        OptionError: the data is a path or name, or None; or ``forward`` names no input.
        ModelError: `module` is no module, or none whose inputs can be read.
        DataError: the data is empty, or gives no arrays for ``forward``.
    """
    if data is None or isinstance(data, str | bytes) or hasattr(data, "__fspath__"):
        raise OptionError(
            "a PyTorch module needs its input shape: input='1x3x224x224', or 'ids:1x128:int64:0..999' for "
            "others than floats; it is read off data that give batches as the module takes them."
        )
    module = unwrapped(module)
    refuse_unfinished(module)
    takes = Parameters.of(module)
    names = takes.required or takes.order[:1]
    if not names:
        raise OptionError(
            "the module's forward names no input (*args alone): say what it takes, input='1x3x224x224'."
        )
    data = repeatable(data, names)
    arrays = first_item(data, names)
    is_sample = _gives_samples(data)
    floating = _floating_type(module)
    return tuple(_input(one, arrays[one], floating, is_sample=is_sample) for one in names), data


def _gives_samples(data: Any) -> bool:
    is_batch = isinstance(data, list | tuple | dict) or hasattr(data, "shape")
    return hasattr(data, "__getitem__") and not is_batch


def _floating_type(module: nn.Module) -> str:
    kinds = (one.dtype for one in module.parameters() if one.is_floating_point())
    return str(next(kinds, "torch.float32")).removeprefix("torch.")


def _input(name: str, values: np.ndarray, floating: str, *, is_sample: bool) -> InputSpec:
    dims = (1, *(values.shape if is_sample else values.shape[1:]))
    if values.dtype.kind == "f" or values.dtype.name == "uint8":
        return InputSpec(dims, name, floating)
    if values.dtype.kind == "b":
        return InputSpec(dims, name, "bool")
    return InputSpec(dims, name, values.dtype.name, float(values.min()), float(values.max()))
