"""The samples that every reader yields, and their index."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.data.survey import SURVEYED_SAMPLES, survey
from trtbuild.errors import DataError
from trtbuild.whereabouts import fetching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from trtbuild.data.skipped import Skipped
    from trtbuild.data.survey import InputSurvey

__all__ = ["DataDigest", "Sample", "SampleIndex", "Source", "SourceOf", "array_key"]

_DIGEST = "sum-sha256:"


@dataclass(frozen=True)
class Sample:
    """One image, or one set of arrays.

    Attributes:
        name: for messages and lists of worst images, for example ``cat.jpg`` or ``x[17]``.
        key: digest of the content, so that a choice among samples does not depend on their order.
        load: returns input name -> array with a batch axis of 1; or, for a network without a batch axis,
            the array that it takes.
        label: class index, if known.
        axes: input name -> its batch axis, if that is not 0; None if it has none.
        is_encoded: whether loading it decodes an image, which other threads can do in advance.
        unused: the unused part of its file, in a few words; empty if there is none.
        depth: depth of its image's pixels, in a few words; empty if it is not an image.
        num_bytes: size of the data that it holds in memory to be loaded from; 0 if it reads them then.
    """

    name: str
    key: bytes
    load: Callable[[], dict[str, np.ndarray]]
    label: int | None = None
    axes: Mapping[str, int | None] = field(default_factory=dict)
    is_encoded: bool = False
    unused: str = ""
    depth: str = ""
    num_bytes: int = 0


@dataclass(frozen=True)
class DataDigest:
    """Number and digest of samples, independent of their order; digests of parts can be added.

    The digest is the sum of the samples' keys, hashed to 256 bits each, modulo 2^256.
    """

    total: int = 0
    num_samples: int = 0

    def plus(self, key: bytes) -> DataDigest:
        """Return the digest with one sample more, given by its key."""
        hashed = int.from_bytes(hashlib.sha256(key).digest(), "big")
        return DataDigest((self.total + hashed) % 2**256, self.num_samples + 1)

    def merge(self, other: DataDigest) -> DataDigest:
        """Return the digest of both parts of the data."""
        total = (self.total + other.total) % 2**256
        return DataDigest(total, self.num_samples + other.num_samples)

    @classmethod
    def from_text(cls, text: str, num_samples: int) -> DataDigest:
        """Parse the text of `str`, for this number of samples."""
        return cls(int(text.removeprefix(_DIGEST), 16), num_samples)

    def __str__(self) -> str:
        return f"{_DIGEST}{self.total:064x}"


@dataclass(frozen=True)
class SampleIndex:
    """What one pass over a source finds about its samples, in their order.

    Attributes:
        keys: key of every sample; equal samples have equal keys.
        labels: label of every sample; None if it has none.
        first: the first sample; None if there is none, or if it is not kept.
        inputs: input name -> the range and the variation of the first samples' values.
        unused: name of a sample -> the unused part of its file, if there is one.
        depths: depth of images -> name of the first sample that has it.
    """

    keys: tuple[bytes, ...]
    labels: tuple[int | None, ...]
    first: Sample | None = None
    inputs: Mapping[str, InputSurvey] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    depths: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> SampleIndex:
        """Read `samples` once; only the first few are loaded."""
        first, entries = None, []
        few: list[dict[str, np.ndarray]] = []
        unused: dict[str, str] = {}
        depths: dict[str, str] = {}
        for sample in samples:
            first = first or sample
            if sample.unused:
                unused[sample.name] = sample.unused
            if sample.depth:
                depths.setdefault(sample.depth, sample.name)
            entries.append((sample.key, sample.label))
            if len(few) < SURVEYED_SAMPLES:
                # a sample that cannot be loaded is reported when it is needed
                with contextlib.suppress(DataError), fetching(sample.name):
                    few.append(sample.load())
        keys = tuple(key for key, _ in entries)
        labels = tuple(label for _, label in entries)
        return cls(keys, labels, first, survey(few), unused, depths)

    def __len__(self) -> int:
        return len(self.keys)

    @functools.cached_property
    def counts(self) -> Counter[bytes]:
        """The distinct keys, and how many samples have each."""
        return Counter(self.keys)

    @functools.cached_property
    def digest(self) -> DataDigest:
        """Number and digest of all samples."""
        return functools.reduce(DataDigest.plus, self.keys, DataDigest())

    def chosen(self, keys: frozenset[bytes]) -> SampleIndex:
        """Return the index of the samples whose keys are among `keys`."""
        kept = [entry for entry in zip(self.keys, self.labels) if entry[0] in keys]
        labels = tuple(label for _, label in kept)
        keys_kept = tuple(key for key, _ in kept)
        return replace(self, keys=keys_kept, labels=labels, first=None)


class Source(ABC):
    """Data that can be read several times, sample by sample.

    A pass may be costly: for a callable it is the user's whole input pipeline. So everything about the
    samples except their values comes from one pass, the `index`.
    """

    @property
    @abstractmethod
    def description(self) -> str:
        """Where the data comes from, for messages and the manifest."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass, in the order of the data."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The parts of the data that were not read, and why."""
        return ()

    @property
    def folders(self) -> frozenset[str] | None:
        """Names of the samples' class folders; None if samples have no folders."""
        return None

    @functools.cached_property
    def index(self) -> SampleIndex:
        """The samples' index; computed on first use, and kept."""
        return SampleIndex.of(self)


@dataclass(frozen=True)
class SourceOf(Source):
    """The samples of another source, changed; all descriptions come from the other source.

    Attributes:
        source: the other source.
    """

    source: Source

    @property
    def description(self) -> str:
        """Where the samples come from."""
        return self.source.description

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The parts of the data that were not read, and why."""
        return self.source.skipped

    @property
    def folders(self) -> frozenset[str] | None:
        """Names of the samples' class folders."""
        return self.source.folders


def array_key(arrays: Iterable[np.ndarray]) -> bytes:
    """Digest of arrays: their dtypes, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
