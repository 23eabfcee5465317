"""Runs images one by one, or together if reading the weights is most of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.outside_weights import MAPPED_LIMIT
from trtbuild.model.writing import num_weights
from trtbuild.search.rows import tensors_with_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.runtime.session import Feeds

    Run = Callable[[Feeds], Mapping[str, np.ndarray]]

__all__ = ["gain_together", "in_rows", "outputs_of", "run_alone", "run_together", "stacked"]

_FLOAT_BYTES = 4


def outputs_of(
    model: ir.Model, run: Run, images: Sequence[Feeds], tensors: Iterable[str]
) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each image, from one run if `gain_together`.

    Args:
        model: a network.
        run: runs it once.
        images: each with a batch of one.
        tensors: names of the tensors that a run returns.
    """
    is_faster = len(images) > 1 and gain_together(model, tensors)
    return run_together(run, images) if is_faster else run_alone(run, images)


def run_alone(run: Run, images: Sequence[Feeds]) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each image, from a run of its own."""
    return [run(feeds) for feeds in images]


def run_together(run: Run, images: Sequence[Feeds]) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each image, from one run if the images have one shape.

    Values may differ in their last bits from those of an image that is run alone.

    Args:
        run: runs once a network for which `gain_together`.
        images: each with a batch of one.
    """
    together = stacked(images) if len(images) > 1 else None
    if together is None:
        return run_alone(run, images)
    return in_rows(run(together), len(images))


def in_rows(outputs: Mapping[str, np.ndarray], count: int) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each of `count` images in a batch; each output has a row per image."""
    return [
        {name: one[place : place + 1] for name, one in outputs.items()} for place in range(count)
    ]


def gain_together(model: ir.Model, tensors: Iterable[str]) -> bool:
    """Return whether to run images of a network together, because it reads more than it computes.

    They are run together only if it is known that they do not affect each other, and that all `tensors` have
    a row for each image, see `tensors_with_rows`.

    Args:
        model: a network.
        tensors: names of the tensors that a run returns.
    """
    if num_weights(model) * _FLOAT_BYTES <= MAPPED_LIMIT:
        return False
    found = tensors_with_rows(model)
    return bool(found) and found >= set(tensors)


def stacked(images: Sequence[Feeds]) -> Feeds | None:
    """Return the images as one batch; None if one is not a batch of one, or shapes differ."""
    first = images[0]
    for feeds in images:
        for name, array in feeds.items():
            if array.ndim == 0 or len(array) != 1 or array.shape != first[name].shape:
                return None
    return {name: np.concatenate([feeds[name] for feeds in images]) for name in first}
