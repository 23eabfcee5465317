"""Runs images one by one, or together if reading the weights is most of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model import input_specs, output_specs
from trtbuild.model.outside_weights import MAPPED_LIMIT
from trtbuild.model.writing import num_weights
from trtbuild.search.rows import rows_meet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.runtime.session import Feeds

__all__ = ["gain_together", "in_rows", "outputs_of", "stacked"]

_FLOAT_BYTES = 4


def outputs_of(
    model: ir.Model,
    run: Callable[[Feeds], Mapping[str, np.ndarray]],
    images: Sequence[Feeds],
) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each image.

    Images of one shape are run together if the network has many weights, a dynamic batch axis in every input,
    and then as many rows in each output as there are images. Values may differ in their last bits from those
    of an image that is run alone.

    Args:
        model: the float network; `run` may run another form of it.
        run: runs the network once.
        images: each with a batch of one.
    """
    together = stacked(images) if len(images) > 1 and gain_together(model) else None
    found = None if together is None else in_rows(run(together), len(images))
    return [run(feeds) for feeds in images] if found is None else found


def in_rows(outputs: Mapping[str, np.ndarray], count: int) -> list[Mapping[str, np.ndarray]] | None:
    """Return the outputs of each of `count` images in a batch; None if an output has another row count."""
    if not all(one.ndim and len(one) == count for one in outputs.values()):
        return None
    return [
        {name: one[place : place + 1] for name, one in outputs.items()} for place in range(count)
    ]


def gain_together(model: ir.Model, outputs: Iterable[str] = ()) -> bool:
    """Return whether to run images of a network together, because it reads more than it computes.

    Images that are seen to affect each other are not run together, see `rows_meet`.

    Args:
        model: the float network.
        outputs: names of outputs that, like every input, must have a dynamic batch as their first axis.
    """
    if num_weights(model) * _FLOAT_BYTES <= MAPPED_LIMIT:
        return False
    wanted, known = set(outputs), output_specs(model)
    ends = [one for one in known if one.name in wanted]
    specs = [*input_specs(model), *ends]
    is_open = all(one.batch_axis == 0 and not isinstance(one.batch, int) for one in specs)
    return is_open and len(ends) == len(wanted) and not rows_meet(model)


def stacked(images: Sequence[Feeds]) -> Feeds | None:
    """Return the images as one batch; None if one is not a batch of one, or shapes differ."""
    first = images[0]
    for feeds in images:
        for name, array in feeds.items():
            if array.ndim == 0 or len(array) != 1 or array.shape != first[name].shape:
                return None
    return {name: np.concatenate([feeds[name] for feeds in images]) for name in first}
