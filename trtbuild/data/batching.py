"""Joins samples along their batch axes, and fills the batch of a network that takes one of a fixed size."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import DataError
from trtbuild.machine import usable_cpus
from trtbuild.whereabouts import fetching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from trtbuild.data.samples import Sample, Source

__all__ = ["Batch", "batches", "filled", "full_batches", "load_feeds", "samples_per_batch"]


@dataclass(frozen=True)
class Batch:
    """Samples joined along the batch axes.

    Attributes:
        feeds: input name -> array of ``len(names)`` rows; or one sample that is a feed of its own.
        labels: int64 array of ``len(names)``, or None if any label is missing.
        names: names of the samples.
        axes: batch axes of the samples.
    """

    feeds: dict[str, np.ndarray]
    labels: np.ndarray | None
    names: tuple[str, ...]
    axes: Mapping[str, int | None] = field(default_factory=dict)

    def samples(self) -> Iterator[Batch]:
        """Yield every sample as a batch of its own."""
        if len(self.names) == 1:
            yield self
            return
        for row, name in enumerate(self.names):
            one = slice(row, row + 1)
            feeds = {
                key: array
                if _is_shared(key, array, self.axes)
                else array[(slice(None),) * (self.axes.get(key, 0) or 0) + (one,)]
                for key, array in self.feeds.items()
            }
            labels = None if self.labels is None else self.labels[one]
            yield Batch(feeds, labels, (name,), self.axes)


def batches(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Join `samples` into batches of `size` rows; the last batch may be smaller.

    Samples whose arrays differ in shape (images of several sizes) never share a batch, nor do samples with
    more than one row: only the network knows what these rows mean. An array without a batch axis (a scalar)
    must be equal in all samples of a batch.

    Raises:
        DataError: a sample cannot be loaded, or holds NaN or infinity.
    """
    waiting: list[tuple[Sample, dict[str, np.ndarray]]] = []
    for sample, arrays in _loaded(samples, size):
        apart = _is_whole(arrays, sample.axes) or len(waiting) == size
        if waiting and (apart or not _go_together(waiting[0][1], arrays, sample.axes)):
            yield _joined(waiting)
            waiting = []
        waiting.append((sample, arrays))
    if waiting:
        yield _joined(waiting)


def _loaded(
    samples: Iterable[Sample], ahead: int
) -> Iterator[tuple[Sample, dict[str, np.ndarray]]]:
    """Yield samples with their arrays, in order; images are decoded while earlier ones are run.

    Args:
        samples: read in the calling thread.
        ahead: number of images to decode in advance, so that a batch is ready when it is needed.
    """
    waiting: deque[tuple[Sample, Future[dict[str, np.ndarray]]]] = deque()
    pool = ThreadPoolExecutor(usable_cpus())  # starts no thread before the first image
    try:
        for sample in samples:
            if not sample.is_encoded:
                yield sample, load_feeds(sample)
                continue
            waiting.append((sample, pool.submit(load_feeds, sample)))
            if len(waiting) > ahead:
                first, loading = waiting.popleft()
                yield first, loading.result()
        for last, loading in waiting:
            yield last, loading.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _is_shared(name: str, array: np.ndarray, axes: Mapping[str, int | None]) -> bool:
    """Whether an array has no batch axis."""
    return not array.ndim or axes.get(name, 0) is None


def _num_rows(name: str, array: np.ndarray, axes: Mapping[str, int | None]) -> int:
    """Length of the batch axis; 1 if there is none."""
    axis = axes.get(name, 0)
    return 1 if axis is None or not array.ndim else array.shape[axis]


def _is_whole(arrays: Mapping[str, np.ndarray], axes: Mapping[str, int | None]) -> bool:
    """Whether a sample is a feed of its own: it has other than one row, or nothing has a batch axis."""
    if all(_is_shared(name, array, axes) for name, array in arrays.items()):
        return True
    return any(_num_rows(name, array, axes) != 1 for name, array in arrays.items())


def _go_together(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    axes: Mapping[str, int | None],
) -> bool:
    """Whether two samples can share a batch: equal shapes, and equal arrays where there is no batch axis."""
    return not _is_whole(first, axes) and all(
        array.shape == second[name].shape
        and (not _is_shared(name, array, axes) or np.array_equal(array, second[name]))
        for name, array in first.items()
    )


def _joined(items: Sequence[tuple[Sample, dict[str, np.ndarray]]]) -> Batch:
    axes = items[0][0].axes
    feeds = {
        name: array
        if len(items) == 1 or _is_shared(name, array, axes)
        else np.concatenate([arrays[name] for _, arrays in items], axis=axes.get(name, 0) or 0)
        for name, array in items[0][1].items()
    }
    labels = [sample.label for sample, _ in items if sample.label is not None]
    return Batch(
        feeds=feeds,
        labels=np.asarray(labels, dtype=np.int64) if len(labels) == len(items) else None,
        names=tuple(sample.name for sample, _ in items),
        axes=axes,
    )


def load_feeds(sample: Sample) -> dict[str, np.ndarray]:
    """Load one sample, to be run alone.

    Minus infinity is allowed: masks that are added before a Softmax contain it. In an INT8 tensor, it is
    refused when ranges are counted.

    Raises:
        DataError: it cannot be loaded, or holds NaN or infinity.
    """
    with fetching(sample.name):
        arrays = sample.load()
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not (array < np.inf).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise DataError(
                f"the sample '{sample.name}' holds {kind} in the data for input '{name}'; "
                "repair it or leave it out."
            )
    return arrays


def full_batches(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Return `batches` without those that are not full; for networks with a fixed batch.

    Raises:
        DataError: there is no full batch.
    """
    found = False
    for batch in batches(samples, size):
        if all(
            _is_shared(name, array, batch.axes) or _num_rows(name, array, batch.axes) == size
            for name, array in batch.feeds.items()
        ):
            found = True
            yield batch
    if not found:
        raise DataError(
            f"the network takes batches of exactly {size}, but there are fewer samples of one shape."
        )


def filled(
    feeds: Mapping[str, np.ndarray], rows: int, axes: Mapping[str, int | None] | None = None
) -> dict[str, np.ndarray]:
    """Repeat one sample to fill the `rows` of a fixed batch; a sample that is a feed of its own stays.

    Args:
        feeds: feeds of the sample.
        rows: size of the batch.
        axes: batch axes of the sample.
    """
    axes = axes or {}
    if rows == 1 or _is_whole(feeds, axes):
        return dict(feeds)
    return {
        name: array
        if _is_shared(name, array, axes)
        else np.repeat(array, rows, axis=axes.get(name, 0) or 0)
        for name, array in feeds.items()
    }


def samples_per_batch(source: Source, size: int) -> int:
    """Return how many samples fill a batch of `size` rows: `size`, or 1 if a sample is a whole feed.

    Raises:
        DataError: the first sample cannot be loaded.
    """
    first = source.index.first if size > 1 else None
    return 1 if first is not None and _is_whole(first.load(), first.axes) else size
