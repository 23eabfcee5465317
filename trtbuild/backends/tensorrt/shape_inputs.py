"""Inputs that hold shapes, such as the sizes of a Resize: TensorRT needs bounds for their values."""

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
    """Access to the samples during a build.

    Attributes:
        batches: starts a pass over the calibration data; None if there is none.
        count: counts how often each value of some inputs occurs in the samples; see `count_values`.
    """

    batches: Callable[[], Iterable[Feeds]] | None
    count: Count


def shape_inputs(network: Any) -> dict[str, int]:
    """Return the inputs of a parsed network that hold a shape, with their number of values."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    return {tensor.name: math.prod(tensor.shape) for tensor in inputs if tensor.is_shape_tensor}


def bounded_values(
    network: Any,
    given: Sequence[Profile],
    count: Count,
) -> Sequence[Profile]:
    """Return bounds for every input that holds a shape, for each profile.

    Missing bounds come from the samples, with a warning: the minimum and maximum of each value, and the most
    frequent values as the optimal ones.

    Args:
        network: the network as TensorRT has parsed it.
        given: bounds of some of the inputs.
        count: see `count_values`; called once, and only if bounds are missing.

    Raises:
        OptionError: bounds for an input that holds no shape, or no bounds for one that does.
    """
    holding = shape_inputs(network)
    for name in given[0] if given else ():
        if name not in holding:
            raise OptionError(
                f"--shape-values names the input '{name}', whose values are not a shape; leave it out."
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
                f"the input '{name}' holds a shape. TensorRT needs bounds of its values, but no sample "
                f"has values for it. Give them: --shape-values '{name}=MIN:OPT:MAX', {each}, such as "
                "size=1,8,8,8:1,8,32,32:1,8,64,64."
            )
    found = {name: _range(seen[name]) for name in missing}
    for name, values in found.items():
        _log.warning(
            "the values of the input '%s' are bounded by those in the samples, %s to %s, usually %s; set "
            "others with --shape-values.",
            name,
            list(values.min),
            list(values.max),
            list(values.opt),
        )
    return [{**found, **profile} for profile in given or [{}]]


def count_values(batches: Callable[[], Iterable[Feeds]] | None, names: Sequence[str]) -> Counts:
    """Return how often each value of each input occurs in the samples.

    Args:
        batches: starts a pass over the samples; None if there are none.
        names: names of the inputs.
    """
    counts: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in names}
    for feeds in batches() if batches is not None else ():
        for name, counter in counts.items():
            if name in feeds:
                counter[tuple(map(int, np.ravel(feeds[name])))] += 1
    return counts


NO_DATA = BuildData(None, functools.partial(count_values, None))
"""For a build without samples."""


def _range(counts: Counter[tuple[int, ...]]) -> ShapeRange:
    columns = list(zip(*counts))
    usual = counts.most_common(1)[0][0]
    return ShapeRange(tuple(map(min, columns)), usual, tuple(map(max, columns)))
