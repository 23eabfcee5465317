"""Chooses a threshold from a histogram, by the name of a method; compares thresholds of two data halves."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrators.errors import CalibratorError, MergeError, MethodError, ObservationError
from calibrators.presets import PRESETS
from calibrators.quantization_error import LEVELS, MagnitudeMoments, expected_error, sqnr_db
from calibrators.ranges import TensorRange
from calibrators.rules import auto, entropy, minmax, mse, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calibrators.histogram import Histogram

__all__ = ["METHODS", "Stability", "add_method", "amax_of", "assess", "choose", "stability"]


METHODS: Mapping[str, Callable[..., tuple[float, str]]] = {
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
    "minmax": minmax,
    "auto": auto,
}
"""Name to rule; a rule takes a histogram with at least one non-zero value, and options of its own."""


_OWN: dict[str, Callable[..., tuple[float, str]]] = {}


def add_method(name: str, rule: Callable[..., Any]) -> None:
    """Register `rule` as the method `name`, in this process and in the calibration files that it writes.

    Args:
        name: must not be a name of `METHODS` or `PRESETS`; a rule registered before is replaced.
        rule: called with a `Histogram` that has a non-zero value, and with options; returns the amax, or
            amax and a note.

    Raises:
        MethodError: the name is taken, or `rule` cannot be called.
    """
    if name in METHODS or name in PRESETS or name == "entropy-tensorrt":
        raise MethodError(f"'{name}' is a built-in method; give yours another name.")
    if not callable(rule):
        raise MethodError(f"the method '{name}' is a {type(rule).__name__}, not a function.")

    @functools.wraps(rule)
    def checked(histogram: Histogram, **options: float) -> tuple[float, str]:
        """Call the rule, and check its answer."""
        return _answer_of(name, rule, histogram, options)

    _OWN[name] = checked


def _answer_of(
    name: str, rule: Callable[..., Any], histogram: Histogram, options: Mapping[str, float]
) -> tuple[float, str]:
    try:
        answer = rule(histogram, **options)
    except CalibratorError:
        raise
    except Exception as error:
        raise MethodError(f"the method '{name}' raised {type(error).__name__}: {error}") from error
    amax, note = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
    try:
        found = float(amax)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 < found < math.inf:
        raise MethodError(
            f"the method '{name}' returned {answer!r}; a rule must return an amax above 0, or an amax "
            "and a note."
        )
    return found, str(note)


def choose(histogram: Histogram, method: str = "entropy", **options: float) -> TensorRange:
    """Return the range of one tensor.

    NaN and infinities in the histogram are left out, and the note says so.

    Args:
        histogram: the tensor's histogram.
        method: a key of `METHODS` or `calibrators.presets.PRESETS`, or a name given to `add_method`.
        **options: the method's options, such as ``percentile=99.9``.

    Raises:
        MethodError: no such method, option or value.
        ObservationError: the histogram holds no finite value.
    """
    amax, note = _apply(histogram, method, options)
    note = _with_non_finite(histogram, note)
    return assess(histogram, amax, method, note)


def amax_of(histogram: Histogram, method: str = "entropy", **options: float) -> float:
    """Return the amax that `choose` finds, without its other figures; same arguments and errors."""
    amax, _ = _apply(histogram, method, options)
    return float(np.float32(amax))


def _apply(histogram: Histogram, method: str, options: Mapping[str, float]) -> tuple[float, str]:
    rule = _rule(method, options)
    if histogram.num_values == 0:
        raise ObservationError("no finite value was seen, so there is nothing to choose from.")
    if histogram.observed_amax == 0:
        return 0.0, f"zero in all {histogram.num_values} values"
    return rule(histogram, **options)


def assess(histogram: Histogram, amax: float, method: str, note: str = "") -> TensorRange:
    """Return the range that ends at `amax`, with clipped share, vanished share and SQNR on this histogram.

    An amax of 0 or infinity gives no scale; these figures then keep their defaults.
    """
    amax = float(np.float32(amax))
    found = TensorRange(
        amax=amax,
        observed_amax=histogram.observed_amax,
        minimum=histogram.minimum,
        maximum=histogram.maximum,
        method=method,
        note=note,
        num_values=histogram.num_values,
        num_zeros=histogram.num_zeros,
    )
    if not 0 < amax < np.inf:
        return found
    moments = MagnitudeMoments(histogram)
    error = expected_error(moments, np.array([amax]))
    num_nonzero, _, signal = moments.total
    num_inside, num_vanished = moments.below(np.array([amax, amax / LEVELS / 2]))[0]
    return replace(
        found,
        clipped_share=round(float(num_nonzero - num_inside) / histogram.num_values, 12),
        vanished_share=round(float(num_vanished / num_nonzero), 12),
        sqnr_db=round(sqnr_db(float(signal), float(error.total[0])), 4),
    )


def _rule(method: str, options: Mapping[str, float]) -> Callable[..., tuple[float, str]]:
    if method == "entropy-tensorrt":
        raise MethodError(
            "'entropy-tensorrt' depends on the order of the batches, which no histogram knows; "
            "collect the batches in order with TensorRTCollector."
        )
    rule = METHODS.get(method) or PRESETS.get(method) or _OWN.get(method)
    if rule is None:
        raise MethodError(
            f"there is no method '{method}'; choose one of {', '.join(METHODS)}, or another tool's "
            f"rule: {', '.join(PRESETS)}."
        )
    if not options:
        return rule
    known = list(inspect.signature(rule).parameters)[1:]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise MethodError(f"the method '{method}' has no option '{option}': {has}.")
    return rule


def _with_non_finite(histogram: Histogram, note: str) -> str:
    notes = [note] if note else []
    for count, kind in ((histogram.num_nan, "NaN"), (histogram.num_inf, "infinite")):
        if count:
            values = "value was" if count == 1 else "values were"
            notes.append(f"{count} {kind} {values} left out")
    return "; ".join(notes)


@dataclass(frozen=True)
class Stability:
    """One tensor's thresholds, from all data and from each half of it."""

    tensor: str
    amax: float
    halves: tuple[float, float]

    @property
    def spread(self) -> float:
        """Difference of the halves' thresholds as a share of the threshold from all data."""
        first, second = self.halves
        return abs(first - second) / self.amax if self.amax else 0.0


def stability(
    amaxes: Mapping[str, float],
    first: Mapping[str, Histogram],
    second: Mapping[str, Histogram],
    method: str = "entropy",
    **options: float,
) -> dict[str, Stability]:
    """Choose thresholds from two halves of the data, to compare them with those from all data.

    The divergence that the entropy rule minimises is flat near its minimum: thresholds a few percent
    apart may be equally good, which `assess` of both on the same histogram shows.

    Args:
        amaxes: tensor name to the threshold that `method` found on all data.
        first: the histograms of these tensors over one half of the images; see `Collector.histograms`.
        second: those over the other half.
        method: as for `choose`.
        **options: as for `choose`.

    Raises:
        MergeError: `amaxes`, `first` and `second` do not have the same tensors.
    """
    odd = sorted((amaxes.keys() ^ first.keys()) | (first.keys() ^ second.keys()))
    if odd:
        raise MergeError(f"the halves have different tensors: '{odd[0]}' is not in all of them.")
    found = {}
    for name, amax in amaxes.items():
        halves = [amax_of(half[name], method, **options) for half in (first, second)]
        found[name] = Stability(name, amax, (halves[0], halves[1]))
    return found
