"""What a calibration answers: a range for every tensor, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from calibrators.errors import MergeError, ObservationError
from calibrators.methods import choose
from calibrators.quantization_error import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calibrators.histogram import Histogram
    from calibrators.methods import Threshold

__all__ = ["Calibration", "TensorRange", "merge_calibrations"]


@dataclass(frozen=True)
class TensorRange:
    """The range of one tensor."""

    amax: float
    """The clipping point, a float32 value at or above 0; 0.0 for a tensor that is always zero."""
    observed_amax: float
    minimum: float
    maximum: float
    method: str
    note: str
    num_values: int
    """Finite values seen, zeros included."""
    num_zeros: int
    clipped_share: float = 0.0
    vanished_share: float = 0.0
    sqnr_db: float = float("inf")

    @classmethod
    def of(cls, histogram: Histogram, threshold: Threshold) -> TensorRange:
        """The range that `threshold` gives the tensor of `histogram`."""
        return cls(
            amax=threshold.amax,
            observed_amax=histogram.observed_amax,
            minimum=histogram.minimum,
            maximum=histogram.maximum,
            method=threshold.method,
            note=threshold.note,
            num_values=histogram.num_values,
            num_zeros=histogram.num_zeros,
            clipped_share=threshold.clipped_share,
            vanished_share=threshold.vanished_share,
            sqnr_db=threshold.sqnr_db,
        )

    @property
    def scale(self) -> np.float32:
        """Step size for symmetric signed INT8, ``amax / 127`` as a float32 division."""
        scale: np.float32 = np.float32(self.amax) / np.float32(LEVELS)
        return scale


@dataclass(frozen=True)
class Calibration:
    """Tensor name to range, how it was chosen, and what it belongs to.

    `calibrators.calibration_file` writes and reads it; equal contents give equal bytes.
    """

    method: str
    ranges: Mapping[str, TensorRange]
    options: Mapping[str, float] = field(default_factory=dict)
    """What the method was given besides the histograms, such as ``percentile``."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What it was made from: digests of model, data, preprocessing; given by the caller."""
    histograms: Mapping[str, Histogram] | None = None
    """The statistics themselves, where they are kept: needed to merge and to choose anew."""

    @classmethod
    def from_histograms(
        cls,
        histograms: Mapping[str, Histogram],
        method: str = "entropy",
        *,
        options: Mapping[str, float] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> Calibration:
        """Choose a threshold for every tensor; the histograms are kept in the result.

        Raises:
            MethodError: no such method, option or value.
            ObservationError: a tensor of which no finite value was seen; the message names it.
        """
        options = dict(options or {})
        ranges = {}
        for name, histogram in histograms.items():
            try:
                threshold = choose(histogram, method, **options)
            except ObservationError as error:
                raise ObservationError(f"tensor '{name}': {error}") from None
            ranges[name] = TensorRange.of(histogram, threshold)
        return cls(method, ranges, options, dict(provenance or {}), histograms)

    def scale(self, name: str) -> np.float32:
        """Step size of a tensor for symmetric signed INT8.

        Raises:
            KeyError: the tensor is not in this calibration.
        """
        return self.ranges[name].scale

    @property
    def amaxes(self) -> dict[str, float]:
        """Tensor name to clipping point."""
        return {name: entry.amax for name, entry in self.ranges.items()}

    def chosen_with(self, method: str, **options: float) -> Calibration:
        """The same statistics with another method's thresholds.

        Raises:
            MethodError: no such method, option or value.
            MergeError: this calibration keeps no histograms.
        """
        return Calibration.from_histograms(
            self._kept_histograms(), method, options=options, provenance=self.provenance
        )

    def to_bytes(self, *, histograms: bool = False) -> bytes:
        """The calibration as a file, see `calibration_file.calibration_to_bytes`."""
        from calibrators.calibration_file import calibration_to_bytes

        return calibration_to_bytes(self, histograms=histograms)

    @staticmethod
    def from_bytes(content: bytes) -> Calibration:
        """Read a file, see `calibration_file.calibration_from_bytes`."""
        from calibrators.calibration_file import calibration_from_bytes

        return calibration_from_bytes(content)

    def without_histograms(self) -> Calibration:
        """The ranges alone, which is all that quantizing needs."""
        return Calibration(self.method, self.ranges, self.options, self.provenance)

    def _kept_histograms(self) -> Mapping[str, Histogram]:
        if self.histograms is None:
            raise MergeError(
                "this calibration holds ranges only; write it with its histograms to merge it or "
                "to choose with another method."
            )
        return self.histograms


def merge_calibrations(
    parts: Sequence[Calibration], provenance: Mapping[str, str] | None = None
) -> Calibration:
    """Put parts of one calibration together: equal to a single run over all their data, to the bit.

    Args:
        parts: at least one, with histograms; of the same tensors, method and options.
        provenance: of the whole; without it the parts must agree on theirs.

    Raises:
        MergeError: the parts do not belong together, or one keeps no histograms.
    """
    if not parts:
        raise MergeError("there is no part to merge.")
    first = parts[0]
    merged = dict(first._kept_histograms())
    for number, part in enumerate(parts[1:], 2):
        _check_same_kind(first, part, number, compare_provenance=provenance is None)
        for name, histogram in part._kept_histograms().items():
            merged[name] = merged[name].merge(histogram)
    return Calibration.from_histograms(
        merged,
        first.method,
        options=first.options,
        provenance=first.provenance if provenance is None else provenance,
    )


def _check_same_kind(
    first: Calibration, part: Calibration, number: int, *, compare_provenance: bool
) -> None:
    odd = sorted(first.ranges.keys() ^ part.ranges.keys())
    if odd:
        raise MergeError(f"part {number} is of other tensors than part 1, for example '{odd[0]}'.")
    if (first.method, first.options) != (part.method, part.options):
        raise MergeError(
            f"part {number} was made with {part.method} {dict(part.options) or ''} and part 1 with "
            f"{first.method} {dict(first.options) or ''}; calibrate all parts alike."
        )
    if not compare_provenance:
        return
    for key in sorted(first.provenance.keys() | part.provenance.keys()):
        mine, theirs = first.provenance.get(key), part.provenance.get(key)
        if mine != theirs:
            raise MergeError(
                f"part {number} has another {key} than part 1: {theirs} instead of {mine}."
            )
