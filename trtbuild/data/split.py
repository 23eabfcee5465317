"""Which samples calibrate and which are kept apart, by content and seed, never by order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import DataError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbuild.data.samples import Sample, Source

__all__ = [
    "HELD_OUT_SHARE",
    "DataDigest",
    "Split",
    "added_digests",
    "choose_samples",
    "data_digest",
    "first_samples",
    "num_samples",
    "shard_of",
    "split",
    "without",
]

# Share of the data that verification keeps for itself when no other data is named.
HELD_OUT_SHARE = 0.05

_DIGEST = "sum-sha256:"


@dataclass(frozen=True)
class ChosenSamples:
    """The samples of a source whose keys are in a set; a source itself.

    Attributes:
        source: all samples.
        keys: of those that were chosen.
        count: how many these are; some samples may be equal.
    """

    source: Source
    keys: frozenset[bytes]
    count: int

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return f"{self.count} samples of {self.source.description}"

    def __iter__(self) -> Iterator[Sample]:
        return (sample for sample in self.source if sample.key in self.keys)

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Split:
    """Two sources that share no sample."""

    calibration: Source
    verification: Source


def split(
    source: Source,
    *,
    num_images: int | None,
    seed: int,
    at_least: int = 1,
    share: float = HELD_OUT_SHARE,
) -> Split:
    """Keep a share of the data for verification, and calibrate on the rest.

    Samples are ranked by a digest of their content and `seed`. Equal samples go the same way, so
    nothing that calibration saw can turn up in verification.

    Args:
        source: all the data.
        num_images: how many samples calibrate; None takes all that are left.
        seed: another seed gives another choice.
        at_least: how many samples verification needs: one full batch where the batch is fixed.
        share: of all samples, that is kept for verification.

    Raises:
        DataError: there are fewer distinct samples than that and one, or fewer than asked for.
    """
    found = _found(source)
    ranked = _ranked(found, seed)
    if len(ranked) < at_least + 1:
        raise DataError(
            f"'{source.description}' holds {len(ranked)} distinct sample(s); calibration needs at least "
            f"one and verification {at_least} more. Give more data, or --verify-data."
        )
    held_out = max(at_least, round(share * len(ranked)))
    kept = _first(ranked[held_out:], num_images, source)
    return Split(_chosen(source, found, kept), _chosen(source, found, ranked[:held_out]))


def choose_samples(source: Source, *, num_images: int | None, seed: int) -> Source:
    """The samples that calibrate when verification has data of its own, or is not wanted.

    Raises:
        DataError: there is no sample, or there are fewer than asked for.
    """
    found = _found(source)
    ranked = _ranked(found, seed)
    if not ranked:
        raise DataError(f"'{source.description}' holds no sample.")
    return _chosen(source, found, _first(ranked, num_images, source))


def without(source: Source, excluded: Source) -> Source:
    """The samples of `source` that are not in `excluded`, by content.

    Raises:
        DataError: nothing is left.
    """
    found = _found(source)
    keys = found.keys() - {sample.key for sample in excluded}
    if not keys:
        raise DataError(
            f"every sample of '{source.description}' is also in '{excluded.description}'; "
            "verification needs data that calibration has not seen."
        )
    return _chosen(source, found, keys)


def shard_of(source: Source, shard: str) -> Source:
    """Part I of N of `source`, with `shard` as ``I/N``; every sample is in exactly one part.

    Raises:
        OptionError: `shard` is not of that form.
        DataError: the part holds no sample.
    """
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise OptionError(f"--shard is I/N with 1 <= I <= N, for example 3/8; not '{shard}'.")
    found = _found(source)
    keys = sorted(found)[int(index) - 1 :: int(count)]
    if not keys:
        raise DataError(
            f"shard {shard} of '{source.description}' holds no sample; use fewer shards."
        )
    return _chosen(source, found, keys)


def first_samples(source: Source, count: int, *, after: int = 0) -> Source:
    """The samples `after` to `count` of `source` in order of content, whatever their order there."""
    found = _found(source)
    return _chosen(source, found, sorted(found)[after:count])


def num_samples(source: Source) -> int:
    """How many samples a pass over `source` gives; read only where the source cannot tell."""
    return len(source) if isinstance(source, Sized) else sum(1 for _ in source)


@dataclass(frozen=True)
class DataDigest:
    """Number and digest of samples, whatever their order; those of parts add up.

    The digest is the sum of the samples' keys, hashed to 256 bits each, modulo 2^256.
    """

    total: int = 0
    num_samples: int = 0

    def plus(self, key: bytes) -> DataDigest:
        """With one sample more, given by its key."""
        hashed = int.from_bytes(hashlib.sha256(key).digest(), "big")
        return DataDigest((self.total + hashed) % 2**256, self.num_samples + 1)

    def merge(self, other: DataDigest) -> DataDigest:
        """Of both parts of the data."""
        total = (self.total + other.total) % 2**256
        return DataDigest(total, self.num_samples + other.num_samples)

    def __str__(self) -> str:
        return _digest_text(self.total)


def data_digest(source: Source) -> DataDigest:
    """The digest of all samples."""
    digest = DataDigest()
    for sample in source:
        digest = digest.plus(sample.key)
    return digest


def added_digests(digests: Iterable[str]) -> str:
    """The digest of all the data, from the digests of its parts."""
    return _digest_text(sum(int(digest.removeprefix(_DIGEST), 16) for digest in digests))


def _digest_text(total: int) -> str:
    return f"{_DIGEST}{total % 2**256:064x}"


def _found(source: Source) -> Counter[bytes]:
    """The keys in `source`, and how many samples have each."""
    return Counter(sample.key for sample in source)


def _chosen(source: Source, found: Counter[bytes], keys: Iterable[bytes]) -> ChosenSamples:
    chosen = frozenset(keys)
    return ChosenSamples(source, chosen, sum(found[key] for key in chosen))


def _ranked(keys: Iterable[bytes], seed: int) -> list[bytes]:
    salt = str(seed).encode()
    return sorted(keys, key=lambda key: hashlib.blake2b(key, key=salt).digest())


def _first(keys: list[bytes], num_images: int | None, source: Source) -> list[bytes]:
    if num_images is not None and num_images > len(keys):
        raise DataError(
            f"{num_images} calibration images were asked for, and '{source.description}' has "
            f"{len(keys)} to give. Give more data or a smaller --num-images."
        )
    return keys[:num_images]
