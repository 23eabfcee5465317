"""The result of a calibration: a range for every tensor, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from calibrators.calibration_file import FileContents, read_file, write_file
from calibrators.errors import CalibrationFileError, MergeError, ObservationError
from calibrators.methods import assess, choose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from calibrators.histogram import Histogram
    from calibrators.ranges import TensorRange

__all__ = ["Calibration", "merge_calibrations", "with_shared_ranges"]


@dataclass(frozen=True)
class Calibration:
    """The range of each tensor, the method that chose them, and where they come from.

    Equal contents give equal files, see `calibrators.calibration_file`.
    """

    method: str
    ranges: Mapping[str, TensorRange]
    options: Mapping[str, float] = field(default_factory=dict)
    """The method's options, such as ``percentile``."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What it was made from: digests of model, data, preprocessing; given by the caller."""
    histograms: Mapping[str, Histogram] | None = None
    """The statistics, if they are kept: needed to merge calibrations and to choose ranges again."""

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
            ObservationError: no finite value of a tensor was seen; the message names the tensor.
        """
        options = dict(options or {})
        ranges = {}
        for name, histogram in histograms.items():
            try:
                ranges[name] = choose(histogram, method, **options)
            except ObservationError as error:
                raise ObservationError(f"tensor '{name}': {error}") from None
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
        """Return a calibration of the same statistics with another method's thresholds.

        A tensor without any value keeps its range.

        Raises:
            MethodError: no such method, option or value.
            MergeError: this calibration has no histograms.
        """
        held = self._kept_histograms()
        ranges = {}
        for name, histogram in held.items():
            try:
                ranges[name] = choose(histogram, method, **options)
            except ObservationError:
                ranges[name] = self.ranges[name]
        return Calibration(method, ranges, dict(options), dict(self.provenance), held)

    def to_bytes(self, *, histograms: bool = False) -> bytes:
        """Return the content of a calibration file: UTF-8 JSON, tensors sorted by name.

        Args:
            histograms: write the statistics too, so that files can be merged and ranges chosen again.

        Raises:
            CalibrationFileError: histograms are wanted, and this calibration has none.
        """
        if histograms and self.histograms is None:
            raise CalibrationFileError(
                "this calibration keeps no histograms that could be written."
            )
        return write_file(
            FileContents(
                method=self.method,
                ranges=self.ranges,
                options=self.options,
                provenance=self.provenance,
                histograms=self.histograms if histograms else None,
            )
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Calibration:
        """Read what `to_bytes` wrote.

        Raises:
            CalibrationFileError: not a calibration file, damaged, or of a newer version; the message says
                what is wrong and in which tensor.
        """
        return cls(**read_file(content)._asdict())

    def without_histograms(self) -> Calibration:
        """Return the ranges without histograms; quantization needs no more."""
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
    """Merge parts of one calibration; the result equals a single run over all their data, to the bit.

    Args:
        parts: at least one, with histograms; of the same tensors, method and options.
        provenance: provenance of the result; if None, all parts must have the same, which is kept.

    Raises:
        MergeError: the parts do not belong together, or one has no histograms.
    """
    if not parts:
        raise MergeError("there are no parts to merge.")
    first = parts[0]
    merged = dict(first._kept_histograms())
    for number, part in enumerate(parts[1:], 2):
        _check_same_kind(first, part, number, compare_provenance=provenance is None)
        for name, histogram in part._kept_histograms().items():
            merged[name] = merged[name].merge(histogram)
    kept = first.provenance if provenance is None else dict(provenance)
    whole = replace(first, histograms=merged, provenance=kept)
    return whole.chosen_with(first.method, **first.options)


def _check_same_kind(
    first: Calibration, part: Calibration, number: int, *, compare_provenance: bool
) -> None:
    odd = sorted(first.ranges.keys() ^ part.ranges.keys())
    if odd:
        raise MergeError(f"part {number} has other tensors than part 1, for example '{odd[0]}'.")
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


def with_shared_ranges(calibration: Calibration, inputs: Mapping[str, str]) -> Calibration:
    """Give tensors the amax of other tensors, along chains.

    TensorRT gives the output of a pooling layer (max, average, global average) the scale of its input.
    This package does not know the graph, so the caller passes these pairs.

    Args:
        calibration: the ranges found for each tensor alone.
        inputs: tensor name to the name of the tensor whose amax it takes. That one may be missing in
            `calibration` if it takes its own amax from another tensor.

    Returns:
        A calibration in which every key of `inputs` has a range with a note that it is shared. The
        other figures of the range are those of the tensor itself if it was observed, else those of the
        tensor at the end of the chain.

    Raises:
        MergeError: a chain ends at a tensor without a range, or is circular.
    """
    ranges = dict(calibration.ranges)
    for name in inputs:
        source = _end_of_chain(name, inputs, calibration)
        ranges[name] = _shared(calibration, name, source)
    return replace(calibration, ranges=ranges)


def _end_of_chain(name: str, inputs: Mapping[str, str], calibration: Calibration) -> str:
    end, passed = name, {name}
    while end in inputs:
        end = inputs[end]
        if end in passed:
            raise MergeError(f"tensor '{name}' would take its own range; break the cycle.")
        passed.add(end)
    if end not in calibration.ranges:
        raise MergeError(f"tensor '{name}' is to take the range of '{end}', which has none.")
    return end


def _shared(calibration: Calibration, name: str, source: str) -> TensorRange:
    given = calibration.ranges[source]
    note = f"takes the range of '{source}'"
    own = calibration.ranges.get(name)
    histogram = (calibration.histograms or {}).get(name)
    if own is None or histogram is None or not 0 < given.amax < float("inf"):
        return replace(own or given, amax=given.amax, note=note)
    return assess(histogram, given.amax, given.method, note)
