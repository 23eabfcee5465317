"""Inputs that hold shapes, such as the sizes of a Resize: TensorRT needs bounds of their values."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import OptionError
from trtbuild.runtime.tensorrt.engine import ShapeRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trtbuild.runtime.session import Feeds
    from trtbuild.runtime.tensorrt.engine import Profile

    Counts = Mapping[str, Counter[tuple[int, ...]]]
    Count = Callable[[Sequence[str]], Counts]

__all__ = ["NO_DATA", "BuildData", "bounded_values", "count_values", "shape_inputs"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildData:
    """What a build may ask of the samples.

    Attributes:
        batches: starts a pass over the calibration data; None where there is none.
        count: how often the samples have which values of some inputs; see `count_values`.
    """

    batches: Callable[[], Iterable[Feeds]] | None
    count: Count


def shape_inputs(network: Any) -> dict[str, int]:
    """Return how many numbers each input of a parsed network has that holds a shape."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    return {tensor.name: math.prod(tensor.shape) for tensor in inputs if tensor.is_shape_tensor}


def bounded_values(
    network: Any,
    given: Sequence[Profile],
    count: Count,
) -> Sequence[Profile]:
    """Return the bounds of every input that holds a shape, for each profile.

    What was not given comes from the samples, with a warning: the least and largest of each value,
    and as the usual ones those that come most often.

    Args:
        network: as TensorRT has parsed it.
        given: bounds of some of them.
        count: see `count_values`; asked once, and only where bounds are missing.

    Raises:
        OptionError: bounds of an input that holds no shape, or none where one does.
    """
    holding = shape_inputs(network)
    for name in given[0] if given else ():
        if name not in holding:
            raise OptionError(
                f"--shape-values names the input '{name}', whose values are no shape; leave it out."
            )
    missing = [name for name in holding if not given or name not in given[0]]
    if not missing:
        return given
    seen = count(missing)
    for name in missing:
        if not seen[name]:
            numbers = holding[name]
            each = "a whole number each" if numbers == 1 else f"{numbers} whole numbers each"
            raise OptionError(
                f"the input '{name}' holds a shape, and TensorRT needs bounds of its values, which no sample "
                f"has. Give them: --shape-values '{name}=MIN:OPT:MAX', {each}, such as "
                "size=1,8,8,8:1,8,32,32:1,8,64,64."
            )
    found = {name: _range(seen[name]) for name in missing}
    for name, values in found.items():
        _log.warning(
            "the values of the input '%s' are bounded by those in the samples, %s to %s, usually %s; "
            "--shape-values gives others.",
            name,
            list(values.min),
            list(values.max),
            list(values.opt),
        )
    return [{**found, **profile} for profile in given or [{}]]


def count_values(batches: Callable[[], Iterable[Feeds]] | None, names: Sequence[str]) -> Counts:
    """Return how often each input has which values in the samples.

    Args:
        batches: starts a pass over them; None where there are none.
        names: of the inputs.
    """
    counts: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in names}
    for feeds in batches() if batches is not None else ():
        for name, counter in counts.items():
            if name in feeds:
                counter[tuple(map(int, np.ravel(feeds[name])))] += 1
    return counts


NO_DATA = BuildData(None, functools.partial(count_values, None))
"""A build that has no samples."""


def _range(counts: Counter[tuple[int, ...]]) -> ShapeRange:
    columns = list(zip(*counts))
    usual = counts.most_common(1)[0][0]
    return ShapeRange(tuple(map(min, columns)), usual, tuple(map(max, columns)))
