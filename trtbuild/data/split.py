"""Splits samples into calibration and verification, by content and seed, never by order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.data.samples import Source
from trtbuild.errors import DataError, OptionError
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbuild.data.samples import Sample, SampleIndex
    from trtbuild.data.skipped import Skipped

__all__ = [
    "HELD_OUT_SHARE",
    "Split",
    "choose_samples",
    "first_samples",
    "shard_of",
    "split",
    "without",
]

# Share of the data kept for verification if no other data is given for it.
HELD_OUT_SHARE = 0.05


class ChosenSamples(Source):
    """Some samples of a source, chosen by their keys.

    Args:
        source: all samples.
        index: index of the chosen samples.
    """

    def __init__(self, source: Source, index: SampleIndex) -> None:
        self._source = source
        self.index = index

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return f"{counted(len(self.index), 'sample')} of {self._source.description}"

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The parts of the whole data that were not read, and why."""
        return self._source.skipped

    def __iter__(self) -> Iterator[Sample]:
        """Start a pass that ends after the last chosen sample.

        Raises:
            DataError: the source gives other data than when the samples were chosen.
        """
        wanted = len(self.index)
        for sample in self._source:
            if sample.key in self.index.counts:
                yield sample
                wanted -= 1
                if not wanted:
                    return
        if wanted:
            raise DataError(
                f"'{self._source.description}' gave other data than in the previous pass: of "
                f"{counted(len(self.index), 'sample')}, {wanted} did not come again. Every pass must give "
                "the same samples, in any order: seed what is random, and leave augmentation out."
            )


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

    Samples are ranked by a digest of their content and `seed`. Equal samples stay together, so no sample
    of calibration can appear in verification.

    Args:
        source: all the data.
        num_images: number of samples that calibrate; None for all that are left.
        seed: another seed gives another choice.
        at_least: number of samples that verification needs: one full batch if the batch is fixed.
        share: share of all samples that is kept for verification.

    Raises:
        DataError: there are no more distinct samples than `at_least`, or fewer than asked for.
    """
    ranked = _ranked(source.index.counts, seed)
    if len(ranked) < at_least + 1:
        raise DataError(
            f"'{source.description}' holds {counted(len(ranked), 'distinct sample')}; calibration needs "
            f"at least one and verification {at_least} more. Give more data, or --verify-data."
        )
    held_out = max(at_least, round(share * len(ranked)))
    kept = _first(ranked[held_out:], num_images, source)
    return Split(samples_of(source, kept), samples_of(source, ranked[:held_out]))


def choose_samples(source: Source, *, num_images: int | None, seed: int) -> Source:
    """Return the samples that calibrate if verification has other data, or is not wanted.

    Raises:
        DataError: there is no sample, or there are fewer than asked for.
    """
    ranked = _ranked(source.index.counts, seed)
    if not ranked:
        raise DataError(f"'{source.description}' holds no sample.")
    return samples_of(source, _first(ranked, num_images, source))


def without(source: Source, excluded: Source) -> Source:
    """Return the samples of `source` that are not in `excluded`, by content.

    Raises:
        DataError: nothing is left.
    """
    keys = source.index.counts.keys() - excluded.index.counts.keys()
    if not keys:
        raise DataError(
            f"every sample of '{source.description}' is also in '{excluded.description}'; "
            "verification needs data that calibration has not seen."
        )
    return samples_of(source, keys)


def shard_of(source: Source, shard: str) -> Source:
    """Return part I of N of `source`, with `shard` as ``I/N``; every sample is in exactly one part.

    Raises:
        OptionError: `shard` does not have that form.
        DataError: the part holds no sample.
    """
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise OptionError(f"--shard is I/N with 1 <= I <= N, for example 3/8; not '{shard}'.")
    keys = sorted(source.index.counts)[int(index) - 1 :: int(count)]
    if not keys:
        raise DataError(
            f"shard {shard} of '{source.description}' holds no sample; use fewer shards."
        )
    return samples_of(source, keys)


def first_samples(source: Source, count: int, *, after: int = 0) -> Source:
    """Return samples `after` to `count` of `source`, sorted by key, whatever their order in the data."""
    return samples_of(source, sorted(source.index.counts)[after:count])


def samples_of(source: Source, keys: Iterable[bytes]) -> Source:
    """Return the samples of `source` with these keys, in its order."""
    return ChosenSamples(source, source.index.chosen(frozenset(keys)))


def _ranked(keys: Iterable[bytes], seed: int) -> list[bytes]:
    salt = str(seed).encode()
    return sorted(keys, key=lambda key: hashlib.blake2b(key, key=salt).digest())


def _first(keys: list[bytes], num_images: int | None, source: Source) -> list[bytes]:
    if num_images is not None and num_images > len(keys):
        raise DataError(
            f"--num-images asks for {counted(num_images, 'calibration sample')}, but "
            f"'{source.description}' has only {len(keys)} for that. Give more data or a smaller --num-images."
        )
    return keys[:num_images]
