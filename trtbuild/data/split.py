"""Which samples calibrate and which are kept apart, by content and seed, never by order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.data.samples import Sample, Source

__all__ = ["Split", "choose_samples", "data_digest", "split"]

# Share of the data that verification keeps for itself when no other data is named.
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class ChosenSamples:
    """The samples of a source whose keys are in a set; a source itself."""

    source: Source
    keys: frozenset[bytes]

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return f"{len(self.keys)} samples of {self.source.description}"

    def __iter__(self) -> Iterator[Sample]:
        return (sample for sample in self.source if sample.key in self.keys)


@dataclass(frozen=True)
class Split:
    """Two sources that share no sample."""

    calibration: Source
    verification: Source


def split(source: Source, *, num_images: int | None, seed: int) -> Split:
    """Keep 5 % of the data (at least one sample) for verification, and calibrate on the rest.

    Samples are ranked by a digest of their content and `seed`. Equal samples go the same way, so
    nothing that calibration saw can turn up in verification.

    Args:
        source: all the data.
        num_images: how many samples calibrate; None takes all that are left.
        seed: another seed gives another choice.

    Raises:
        DataError: there are fewer than two distinct samples, or fewer than asked for.
    """
    ranked = _ranked(source, seed)
    if len(ranked) < 2:
        raise DataError(
            f"'{source.description}' holds {len(ranked)} distinct sample(s); calibration and "
            "verification need at least one each. Give more data, or --verify-data."
        )
    held_out = max(1, round(HELD_OUT_SHARE * len(ranked)))
    kept = _first(ranked[held_out:], num_images, source)
    return Split(ChosenSamples(source, kept), ChosenSamples(source, frozenset(ranked[:held_out])))


def choose_samples(source: Source, *, num_images: int | None, seed: int) -> Source:
    """The samples that calibrate when verification has data of its own, or is not wanted.

    Raises:
        DataError: there is no sample, or there are fewer than asked for.
    """
    ranked = _ranked(source, seed)
    if not ranked:
        raise DataError(f"'{source.description}' holds no sample.")
    return ChosenSamples(source, _first(ranked, num_images, source))


def without(source: Source, excluded: Source) -> Source:
    """The samples of `source` that are not in `excluded`, by content.

    Raises:
        DataError: nothing is left.
    """
    keys = frozenset(s.key for s in source) - frozenset(s.key for s in excluded)
    if not keys:
        raise DataError(
            f"every sample of '{source.description}' is also in '{excluded.description}'; "
            "verification needs data that calibration has not seen."
        )
    return ChosenSamples(source, keys)


def data_digest(source: Source) -> str:
    """SHA-256 over the keys of all samples, in order of key."""
    digest = hashlib.sha256()
    for key in sorted(sample.key for sample in source):
        digest.update(key)
    return f"sha256:{digest.hexdigest()}"


def _ranked(source: Source, seed: int) -> list[bytes]:
    salt = str(seed).encode()
    keys = {sample.key for sample in source}
    return sorted(keys, key=lambda key: hashlib.blake2b(key, key=salt).digest())


def _first(keys: list[bytes], num_images: int | None, source: Source) -> frozenset[bytes]:
    if num_images is not None and num_images > len(keys):
        raise DataError(
            f"{num_images} calibration images were asked for, and '{source.description}' has "
            f"{len(keys)} to give. Give more data or a smaller --num-images."
        )
    return frozenset(keys[:num_images])
