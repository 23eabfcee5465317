"""What every reader yields: samples; and how they become batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trtbuild.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = [
    "Batch",
    "Sample",
    "Source",
    "array_key",
    "batches",
    "filled",
    "full_batches",
    "load_feeds",
    "samples_per_batch",
]


@dataclass(frozen=True)
class Sample:
    """One image, or one set of arrays.

    Attributes:
        name: for messages and lists of worst images, for example ``cat.jpg`` or ``x[17]``.
        key: digest of the content, so that a choice among samples does not depend on their order.
        load: gives input name -> array with a leading batch axis of 1; or, for a network without a
            batch axis, the array that it takes.
        label: class index, where it is known.
    """

    name: str
    key: bytes
    load: Callable[[], dict[str, np.ndarray]]
    label: int | None = None


class Source(Protocol):
    """Data that can be gone through more than once, a sample at a time."""

    @property
    def description(self) -> str:
        """Where the data comes from, for messages and the manifest."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """Start a new pass, in the order of the data."""
        ...


@dataclass(frozen=True)
class Batch:
    """Samples put together along axis 0.

    Attributes:
        feeds: input name -> array of ``len(names)`` rows; or one sample that is a feed of its own.
        labels: int64 array of ``len(names)``, or None where any label is missing.
        names: names of the samples.
    """

    feeds: dict[str, np.ndarray]
    labels: np.ndarray | None
    names: tuple[str, ...]


def array_key(arrays: Iterable[np.ndarray]) -> bytes:
    """Digest of arrays: their dtypes, shapes and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def batches(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Put `samples` together in batches of `size` rows; the last one may be smaller.

    Samples whose arrays differ in shape (images of several sizes) never share a batch, nor do samples
    whose leading axis is not 1: what it means, only the network knows.

    Raises:
        DataError: a sample cannot be loaded, or holds NaN or infinity.
    """
    waiting: list[tuple[Sample, dict[str, np.ndarray]]] = []
    shape: Any = None
    for sample in samples:
        arrays = load_feeds(sample)
        this_shape = {name: array.shape for name, array in arrays.items()}
        alone = any(array.shape[:1] != (1,) for array in arrays.values())
        if waiting and (alone or len(waiting) == size or this_shape != shape):
            yield _joined(waiting)
            waiting = []
        waiting.append((sample, arrays))
        shape = this_shape
    if waiting:
        yield _joined(waiting)


def _joined(items: Sequence[tuple[Sample, dict[str, np.ndarray]]]) -> Batch:
    feeds = {
        name: np.concatenate([arrays[name] for _, arrays in items]) if len(items) > 1 else array
        for name, array in items[0][1].items()
    }
    labels = [sample.label for sample, _ in items if sample.label is not None]
    return Batch(
        feeds=feeds,
        labels=np.asarray(labels, dtype=np.int64) if len(labels) == len(items) else None,
        names=tuple(sample.name for sample, _ in items),
    )


def load_feeds(sample: Sample) -> dict[str, np.ndarray]:
    """Load one sample, for a run of its own.

    Raises:
        DataError: it cannot be loaded, or holds NaN or infinity.
    """
    arrays = sample.load()
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise DataError(
                f"the sample '{sample.name}' holds {kind} in the data for input '{name}'; "
                "repair it or leave it out."
            )
    return arrays


def full_batches(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """`batches`, without those that are not full; for networks whose batch is fixed.

    Raises:
        DataError: not one full batch.
    """
    found = False
    for batch in batches(samples, size):
        if all(array.shape[:1] == (size,) for array in batch.feeds.values()):
            found = True
            yield batch
    if not found:
        raise DataError(
            f"the network takes batches of exactly {size}, and there are fewer samples of one shape."
        )


def filled(feeds: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Repeat one sample to the `rows` of a fixed batch; a sample that is a feed of its own stays."""
    if rows == 1 or any(array.shape[:1] != (1,) for array in feeds.values()):
        return dict(feeds)
    return {name: np.repeat(array, rows, axis=0) for name, array in feeds.items()}


def samples_per_batch(samples: Iterable[Sample], size: int) -> int:
    """How many samples fill a batch of `size` rows: `size`, or 1 where a sample is a feed of its own.

    Raises:
        DataError: the first sample cannot be loaded.
    """
    for sample in samples:
        if any(array.shape[:1] != (1,) for array in sample.load().values()):
            return 1
        break
    return size
