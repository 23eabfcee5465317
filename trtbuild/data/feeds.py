"""Turns one sample of an array into a feed: batch axis, dtype and dims as the network's input has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError, decoding
from trtbuild.wording import dims_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.preprocess import Preprocess

__all__ = ["as_feed", "as_feeds", "axes_of", "channels_of", "image_input"]


def as_feeds(
    sample: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    name: str,
) -> dict[str, np.ndarray]:
    """Turn one sample, input name -> values without a batch axis, into feeds for all inputs.

    Args:
        sample: the values; images if there is a preprocessing.
        inputs: the network's inputs.
        preprocess: applied to the image input; None uses all arrays as they are.
        name: the sample's name, for messages.

    Raises:
        DataError: an array does not fit; the message names the sample and the input.
    """
    feeds = {}
    image = None if preprocess is None else image_input(inputs, preprocess).name
    for spec in inputs:
        values = sample[spec.name]
        if preprocess is not None and spec.name == image:
            with decoding(DataError, f"the image '{name}' cannot be preprocessed"):
                values = preprocess.apply(values, name, channels_of(spec, preprocess))[0]
        feeds[spec.name] = as_feed(values, spec, name)
    return feeds


def image_input(inputs: Sequence[TensorSpec], preprocess: Preprocess) -> TensorSpec:
    """Return the input that takes images: the one named, the only one, or the only one of rank 4.

    Raises:
        DataError: there is no input of that name, or it is not clear which input it is.
    """
    if preprocess.input is not None:
        found = [spec for spec in inputs if spec.name == preprocess.input]
    else:
        found = [spec for spec in inputs if len(spec.dims) == 4] if len(inputs) > 1 else [*inputs]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"'{spec.name}'" for spec in inputs)
    what = (
        f"none is '{preprocess.input}'"
        if preprocess.input
        else "it is not clear which takes images"
    )
    raise DataError(f"the network has the inputs {names}, and {what}; name it with --image-input.")


def channels_of(spec: TensorSpec, preprocess: Preprocess) -> int | None:
    """Return the number of channels of an image input; None if its dims do not say."""
    if len(spec.dims) not in (3, 4):
        return None
    channels = spec.dims[-3 if preprocess.layout == "NCHW" else -1]
    return channels if isinstance(channels, int) else None


def axes_of(inputs: Sequence[TensorSpec]) -> dict[str, int | None]:
    """Return input name -> batch axis, for axes other than 0."""
    return {spec.name: spec.batch_axis for spec in inputs if spec.batch_axis != 0}


def as_feed(sample: np.ndarray, spec: TensorSpec, name: str) -> np.ndarray:
    """Turn one sample into a feed of an input.

    A sample with one axis less than the input gets a batch axis of length 1 if the input has a batch axis; a
    sample of the full rank is a feed already. Integers and booleans are converted into each other, and whole
    floats into integers, if no value changes; floats of other widths are rounded.

    Args:
        sample: the values.
        spec: the input.
        name: the sample's name, for messages.

    Raises:
        DataError: rank, a fixed dim or the kind of numbers does not fit.
    """
    # np.ascontiguousarray would turn a scalar into a vector
    return np.asarray(_as_dtype(_as_dims(sample, spec, name), spec, name), order="C")


def _as_dims(sample: np.ndarray, spec: TensorSpec, name: str) -> np.ndarray:
    if not spec.dims:  # a scalar, or a shape that the file does not give
        return sample[np.newaxis] if sample.ndim else sample
    feed, wanted, axis = sample, spec.dims, spec.batch_axis
    if axis is not None:
        if sample.ndim + 1 == len(spec.dims):
            feed = np.expand_dims(sample, axis)
        if feed.shape[axis : axis + 1] == (1,):
            wanted = (*spec.dims[:axis], 1, *spec.dims[axis + 1 :])
    fits = feed.ndim == len(wanted) and all(
        size == dim for size, dim in zip(feed.shape, wanted) if isinstance(dim, int)
    )
    if not fits:
        raise DataError(
            f"the sample '{name}' has the shape {dims_text(sample.shape)} for the input '{spec.name}', "
            f"but the network takes {dims_text(spec.sample_dims)} {_besides(axis)}; "
            f"{_advice(feed.shape, wanted)}"
        )
    return feed


def _besides(axis: int | None) -> str:
    if axis is None:
        return "(without a batch axis)"
    return "(after the batch axis)" if axis == 0 else f"(besides the batch axis {axis})"


def _advice(found: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> str:
    """Advice on a wrong shape: another layout or grey images, if that would fit."""
    if len(found) == len(wanted) == 4:
        last = (found[0], found[2], found[3], found[1])
        first = (found[0], found[3], found[1], found[2])
        if _agree(last, wanted) and isinstance(wanted[3], int):
            return "it takes channels last: use --layout NHWC, or transpose the array (0, 2, 3, 1)."
        if _agree(first, wanted) and isinstance(wanted[1], int):
            return (
                "it takes channels first: use --layout NCHW, or transpose the array (0, 3, 1, 2)."
            )
        for axis in (1, 3):
            grey = (*found[:axis], 1, *found[axis + 1 :])
            if found[axis] == 3 and wanted[axis] == 1 and _agree(grey, wanted):
                return "it takes gray images: give them with --color GRAY."
    return "check the data, its layout and the preprocessing."


def _agree(found: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    return all(size == dim for size, dim in zip(found, wanted) if isinstance(dim, int))


def _as_dtype(feed: np.ndarray, spec: TensorSpec, name: str) -> np.ndarray:
    if feed.dtype == spec.dtype:
        return feed
    if _is_float(spec.dtype) and _is_float(feed.dtype):
        return feed.astype(spec.dtype)
    if spec.dtype.kind in "iub" and feed.dtype.kind in "iubf":
        with np.errstate(invalid="ignore"):
            cast = feed.astype(spec.dtype)
        if np.array_equal(cast, feed):
            return cast
        raise DataError(
            f"the sample '{name}' holds values for the input '{spec.name}' that {spec.dtype} cannot "
            f"hold (from {feed.min()} to {feed.max()}, {feed.dtype}); check the data."
        )
    raise DataError(
        f"the data for the input '{spec.name}' is {feed.dtype}, but the network takes {spec.dtype}; "
        "name the preprocessing (--preprocess FILE, or --scale 1 for raw pixel values)."
    )


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    # ml_dtypes' bfloat16 has the kind 'V'
    return dtype.kind == "f" or dtype.name == "bfloat16"
