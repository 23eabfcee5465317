"""Two calibrations side by side: where their thresholds differ, and what each choice costs.

Either side may be a `Calibration`, TensorRT's cache or another tool's table: only the amax of each
tensor is compared. If histograms are given, each difference is also stated in their bins, and each
threshold with its clipped share, SQNR and divergence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from calibrators import entropy
from calibrators.errors import CacheError
from calibrators.methods import assess
from calibrators.ranges import TensorRange  # noqa: TC001 - its fields are read by type
from calibrators.rules import covering_exponent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators.histogram import Histogram

__all__ = ["Agreement", "Comparison", "Crosscheck", "crosscheck", "read_onnxruntime_table"]

_NUM_BINS = 2048
_NEAR, _FAR = 0.10, 0.25
_LEVELS = 128
# A threshold in (2**(e - 1), 2**e] keeps more than 128 of 2048 bins of a range that ends at 2**(e + 3).
_KEPT_OCTAVES = 3


class Agreement(str, Enum):
    """How close two thresholds of one tensor are, from best to worst.

    The limits come from replays of a TensorRT calibration: rounding noise of 1e-3 on the activations
    moves thresholds by up to 11 %, other images of the same kind by up to 24 %.
    """

    SAME = "same"
    """At most one of 2048 bins apart: the resolution of a histogram."""
    NEAR = "near"
    """Up to 10 % apart."""
    APART = "apart"
    """Up to 25 % apart."""
    FAR = "far"
    """More than 25 % apart."""
    UNUSABLE = "unusable"
    """One is zero or infinite, so it gives no scale; this does not count as a disagreement."""

    __str__ = str.__str__  # Python 3.10 has no StrEnum


@dataclass(frozen=True)
class Comparison:
    """One tensor's two thresholds.

    Attributes:
        tensor: its name.
        first, second: the thresholds.
        agreement: how close they are.
        bins: `second` minus `first`, in bins of 1/2048 of the power of two that covers the tensor; of a
            tensor with outliers, of a range in which the larger threshold keeps at least 128 bins, as every
            rule does.
        costs: clipped share and SQNR of both, if the tensor's histogram was given.
        divergences: divergence at the first threshold, at the second, and the least of all thresholds. If
            the first two are within a few percent of the third, the entropy rule accepts both thresholds.
        ratio: `second` / `first`; NaN if one is not usable.
        flagged: whether they differ by more than the histogram's resolution explains.
    """

    tensor: str
    first: float
    second: float
    agreement: Agreement
    bins: float
    costs: tuple[TensorRange, TensorRange] | None = None
    divergences: tuple[float, float, float] | None = None
    ratio: float = field(init=False)
    flagged: bool = field(init=False)

    def __post_init__(self) -> None:
        usable = self.agreement != Agreement.UNUSABLE
        object.__setattr__(self, "ratio", self.second / self.first if usable else math.nan)
        differ = self.agreement in (Agreement.NEAR, Agreement.APART, Agreement.FAR)
        object.__setattr__(self, "flagged", differ)


@dataclass(frozen=True)
class Crosscheck:
    """The result of a comparison."""

    comparisons: tuple[Comparison, ...]
    """The tensors in both: farthest apart first, those without a usable scale last."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def flagged(self) -> tuple[Comparison, ...]:
        """Tensors whose thresholds differ by more than the histogram's resolution explains."""
        return tuple(entry for entry in self.comparisons if entry.flagged)

    def count(self, agreement: Agreement) -> int:
        """Return the number of tensors with this agreement."""
        return sum(entry.agreement == agreement for entry in self.comparisons)


def crosscheck(
    first: Mapping[str, float],
    second: Mapping[str, float],
    histograms: Mapping[str, Histogram] | None = None,
) -> Crosscheck:
    """Compare two sets of thresholds, tensor by tensor.

    Args:
        first: tensor name to amax, such as ``Calibration.amaxes`` or ``CalibrationCache.amaxes``.
        second: the other side, likewise.
        histograms: histograms of some or all of the tensors.
    """
    histograms = histograms or {}
    found = [
        _compare(name, amax, second[name], histograms.get(name))
        for name, amax in first.items()
        if name in second
    ]
    return Crosscheck(
        tuple(sorted(found, key=_distance, reverse=True)),
        tuple(name for name in first if name not in second),
        tuple(name for name in second if name not in first),
    )


def _distance(entry: Comparison) -> float:
    return -1.0 if entry.agreement == Agreement.UNUSABLE else abs(math.log(entry.ratio))


def _compare(name: str, first: float, second: float, histogram: Histogram | None) -> Comparison:
    if not (0 < first < math.inf and 0 < second < math.inf):
        return Comparison(name, first, second, Agreement.UNUSABLE, math.nan)
    observed = histogram.observed_amax if histogram else 0.0
    exponent = _exponent(observed, max(first, second))
    bins = (second - first) / 2.0**exponent * _NUM_BINS
    agreement = _agreement(first, second, bins)
    if not observed or histogram is None:
        return Comparison(name, first, second, agreement, bins)
    return Comparison(
        name,
        first,
        second,
        agreement,
        bins,
        (assess(histogram, first, "first"), assess(histogram, second, "second")),
        _divergences(histogram, exponent, first, second),
    )


def _exponent(observed: float, threshold: float) -> int:
    """The exponent of the range of 2048 bins: it covers what was observed, except for outliers.

    The rules keep 128 bins or more, so a range of more than 16 thresholds is not the one they search in.
    """
    covers = covering_exponent(threshold)
    return min(covering_exponent(observed), covers + _KEPT_OCTAVES) if observed else covers


def _agreement(first: float, second: float, bins: float) -> Agreement:
    if abs(bins) <= 1:
        return Agreement.SAME
    difference = abs(second - first) / max(first, second)
    if difference <= _NEAR:
        return Agreement.NEAR
    return Agreement.APART if difference <= _FAR else Agreement.FAR


def _divergences(
    histogram: Histogram, exponent: int, first: float, second: float
) -> tuple[float, float, float]:
    counts = histogram.fold(exponent)
    outliers = histogram.num_values - int(counts.sum())
    counts[0] = counts[1]
    values = entropy.divergences(counts, _LEVELS, outliers)
    thresholds = np.array([first, second])
    # a threshold of i + 0.5 bin widths keeps i bins; one that clips nothing keeps all
    kept = np.floor(thresholds / 2.0**exponent * _NUM_BINS)
    kept = np.where(thresholds >= histogram.observed_amax, kept + 1, kept)
    positions = np.clip(kept, _LEVELS, _NUM_BINS).astype(int) - _LEVELS
    of_first, of_second = np.maximum(values[positions], 0.0)
    return float(of_first), float(of_second), max(float(values.min()), 0.0)


def read_onnxruntime_table(content: bytes) -> dict[str, float]:
    """Read the thresholds from ``calibration.cache``, the text that ONNX Runtime's tool writes.

    Each line is a tensor name, a space, and the tensor's largest value as a decimal number.

    Raises:
        CacheError: a line has another form, and the message names the line; or there is none.
    """
    amaxes = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        name, _, value = line.rstrip().rpartition(" ")
        if not line.strip():
            continue
        try:
            amaxes[name] = abs(float(value))
        except ValueError:
            name = ""
        if not name:
            raise CacheError(f"line {number} is not 'name value' as ONNX Runtime writes it.")
    if not amaxes:
        raise CacheError("it is empty.")
    return amaxes
