"""Histograms of each sample alone, on disk: any subset of samples can be calibrated without another run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["KeptHistograms"]

_NUMBER = np.dtype(np.uint32)


@dataclass(frozen=True)
class _Place:
    """Where the bins of one histogram are in the file, and the histogram's other figures."""

    offset: int
    num_bins: int
    num_zeros: int
    minimum: float
    maximum: float

    @property
    def is_empty(self) -> bool:
        """Whether no value was seen."""
        return self.num_bins + self.num_zeros == 0


class KeptHistograms:
    """Keeps histograms of samples in a temporary file: 8 bytes per occupied bin, some 50 KB per tensor.

    Args:
        tensors: names of the observed tensors.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        self._tensors = tuple(tensors)
        self._file = tempfile.TemporaryFile(prefix="trtbuild-")  # noqa: SIM115 - goes with this object
        self._end = 0
        self._places: dict[bytes, tuple[_Place, ...]] = {}
        self._bins: NDArray[np.uint32] | None = None

    @property
    def keys(self) -> frozenset[bytes]:
        """Keys of the samples in the file."""
        return frozenset(self._places)

    def keep(self, key: bytes, histograms: Mapping[str, Histogram]) -> None:
        """Add the histograms of a sample, without NaN and infinity; does nothing if the sample is there."""
        if key not in self._places:
            self._places[key] = tuple(self._placed(histograms[name]) for name in self._tensors)

    def _placed(self, histogram: Histogram) -> _Place:
        numbers, counts = histogram.signed_bins()
        both = np.stack([numbers, counts]).astype(_NUMBER)
        self._file.write(both.tobytes())
        place = _Place(
            self._end, len(numbers), histogram.num_zeros, histogram.minimum, histogram.maximum
        )
        self._end += both.size
        return place

    def _parts(self, key: bytes, tensor: int) -> tuple[_Place, NDArray[np.uint32]]:
        place = self._places[key][tensor]
        if self._bins is None:
            self._file.flush()
            self._bins = np.memmap(self._file, _NUMBER, "r") if self._end else np.zeros(0, _NUMBER)
        whole = self._bins[place.offset : place.offset + 2 * place.num_bins]
        return place, whole.reshape(2, place.num_bins)

    @staticmethod
    def together(parts: Sequence[KeptHistograms], keys: Sequence[bytes]) -> dict[str, Histogram]:
        """Return each tensor's histogram over the samples of `keys`; equal to one run over these samples.

        Args:
            parts: histograms of the same tensors; every sample is in one of the parts.
            keys: keys of the samples, without repetition.
        """
        holder = {key: part for part in parts for key in part.keys}
        found = {}
        for number, name in enumerate(parts[0]._tensors):
            kept = [holder[key]._parts(key, number) for key in keys]
            found[name] = _sum([one for one in kept if not one[0].is_empty])
        return found


def _sum(parts: Sequence[tuple[_Place, NDArray[np.uint32]]]) -> Histogram:
    if not parts:
        return Histogram()
    numbers, counts = np.concatenate([bins for _, bins in parts], axis=1)
    # sums of counts are exact in float64 up to 2**53
    total = np.bincount(numbers, weights=counts) if numbers.size else np.zeros(0)
    occupied = np.flatnonzero(total)
    return Histogram.from_bins(
        occupied,
        total[occupied].astype(np.int64),
        num_zeros=sum(place.num_zeros for place, _ in parts),
        num_nan=0,
        num_inf=0,
        minimum=min(place.minimum for place, _ in parts),
        maximum=max(place.maximum for place, _ in parts),
    )
