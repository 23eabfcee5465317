"""The loop that observes a network: runs samples and passes the network's tensors to observers.

Every sample runs alone, so its activations are the same to the bit whatever the batch, the samples that
run at the same time, and the number of threads. This is no slower on a CPU: one image's activations stay
in the cache, and one run per core needs no synchronisation inside operators. Memory holds the activations
of a few samples per thread (`ActivationBuffers`), however many samples there are.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from trtbuild.calibration.buffers import ActivationBuffers
from trtbuild.data import Sample, filled, load_feeds
from trtbuild.data.running import naming
from trtbuild.whereabouts import busy

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence

    from trtbuild.runtime.onnxruntime import OnnxRuntimeSession
    from trtbuild.runtime.session import Feeds

__all__ = ["Observer", "Place", "Worker", "as_samples", "observe", "run_in_threads"]

Item = TypeVar("Item")
Taken_contra = TypeVar("Taken_contra", contravariant=True)

# Most samples that a thread is given at once.
_MOST_AT_A_TIME = 8
# Most work that a thread postpones. Otherwise, with a network of many weights and few activations, a thread
# would collect dozens of samples that nobody runs before the end, most of them in one thread.
_SECONDS_PUT_OFF = 0.1
# Fewest items read ahead for each thread.
_AHEAD = 2
# Most bytes of samples read ahead for each thread, if there are more than `_AHEAD` items.
_BYTES_AHEAD = 32 * 2**20
# Samples of each half of the data wait separately, until there are enough to fill the buffers.
_GROUPS = 2


class Place(NamedTuple):
    """A sample's position in the data, its name, its key, and its class if known."""

    number: int
    name: str
    key: bytes
    label: int | None = None

    def __str__(self) -> str:
        return f"the sample '{self.name}' (number {self.number})"


class Observer(Protocol):
    """Collects statistics of a network's tensors; called by one thread only."""

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors to observe: outputs and inputs of the network."""
        ...

    def group(self, key: bytes) -> int:
        """Return the group of a sample, 0 or 1; one call of `update` has samples of one group only."""
        del key
        return 0

    def update(self, tensors: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Observe the tensors of some samples of one group.

        Args:
            tensors: name to values: an array with one row per sample before the tensor's own axes, which is
                overwritten after the call; for outputs that stay on a device, a list with one object with
                ``__dlpack__`` per sample. Outputs come first, in the order of the network.
            places: the samples, in the order of the rows.
        """
        ...


def observe(
    session: OnnxRuntimeSession,
    samples: Iterable[Sample],
    observers: Sequence[Observer],
    *,
    static_batch: int | None = None,
    on_device: bool = False,
) -> None:
    """Run samples and pass the tensors of each to one of `observers`; a single observer gets them in order.

    Args:
        session: the network; its inputs and outputs can be observed.
        samples: the samples to run.
        observers: observers of the same tensors; each is called in a thread of its own.
        static_batch: size of the batch axis if the network fixes it; each sample is repeated to fill it.
        on_device: leave outputs on the session's device.

    Raises:
        DataError: a sample does not load.
        ModelError: the network cannot be run on a sample.
        TrtbuildError: an error of an observer.
    """
    workers = [_Worker(session, observer, static_batch or 1, on_device) for observer in observers]
    for _ in run_in_threads(workers, _portions(samples, workers[0])):
        pass


def as_samples(feeds: Iterable[Feeds]) -> Iterator[Sample]:
    """Return feeds as samples; each keeps all its rows, so it runs unchanged."""
    for number, feed in enumerate(feeds):
        num_bytes = sum(array.nbytes for array in feed.values())
        yield Sample(
            f"batch {number}", b"\0", functools.partial(_copied, feed), num_bytes=num_bytes
        )


def _copied(feeds: Feeds) -> dict[str, np.ndarray]:
    return dict(feeds)


def _portions(samples: Iterable[Sample], worker: _Worker) -> Iterator[list[tuple[int, Sample]]]:
    """Yield numbered samples in portions, which threads take from the queue; larger ones for small networks.

    A sample may take only a millisecond, and threads that access the queue less often wait less.
    """
    portion: list[tuple[int, Sample]] = []
    for numbered in enumerate(samples):
        portion.append(numbered)
        if len(portion) >= worker.portion:
            yield portion
            portion = []
    if portion:
        yield portion


class _Loaded(NamedTuple):
    """A sample that has been read."""

    place: Place
    feeds: Mapping[str, np.ndarray]


class _Worker:
    """The work of one thread: runs samples and passes their activations to its observer.

    Samples wait until there are enough of one group to fill the buffers.
    """

    def __init__(
        self, session: OnnxRuntimeSession, observer: Observer, batch_size: int, on_device: bool
    ) -> None:
        self._session = session
        self._observer = observer
        self._wanted = frozenset(observer.tensors)
        self._batch_size = batch_size
        self._on_device = on_device
        self._waiting: tuple[list[_Loaded], list[_Loaded]] = ([], [])
        self._buffers: ActivationBuffers | None = None
        self._most_put_off = 1
        self._shapes_vary = False

    @property
    def capacity(self) -> int:
        """How many samples of a group wait before they are run together."""
        return 1 if self._buffers is None else min(self._buffers.capacity, self._most_put_off)

    def items_ahead(self, item: list[tuple[int, Sample]]) -> int:
        """How many portions it may postpone before it has to run samples; fewer if their data is large."""
        postponed = -(-_GROUPS * self.capacity // self.portion)
        size = sum(sample.num_bytes for _, sample in item)
        return max(_AHEAD, min(postponed, _BYTES_AHEAD // max(1, size)))

    @property
    def portion(self) -> int:
        """How many samples it gets at once."""
        return min(_MOST_AT_A_TIME, self.capacity)

    def take(self, item: list[tuple[int, Sample]]) -> None:
        """Read samples; they may wait to be run and observed together with later ones."""
        for number, sample in item:
            self._take(number, sample)

    def finish(self) -> None:
        """Run and observe the samples that still wait."""
        self._run_waiting(0)
        self._run_waiting(1)

    def _take(self, number: int, sample: Sample) -> None:
        # a fixed batch is filled with copies of the sample: all counts grow by the same factor
        feeds = filled(load_feeds(sample), self._batch_size, sample.axes)
        loaded = _Loaded(Place(number, sample.name, sample.key, sample.label), feeds)
        if self._buffers is None or not self._buffers.fits(feeds):
            self.finish()
            self._run_alone(loaded)
            return
        group = self._observer.group(sample.key)
        self._waiting[group].append(loaded)
        if len(self._waiting[group]) >= self.capacity:
            self._run_waiting(group)

    def _run_waiting(self, group: int) -> None:
        waiting = self._waiting[group].copy()
        self._waiting[group].clear()
        num_done = 0
        if self._buffers is not None:
            with self._pace(len(waiting)):
                num_done = self._buffers.fill(_one_by_one(waiting))
            self._show(self._buffers.first(num_done), waiting[:num_done])
        for loaded in waiting[num_done:]:
            # Output shapes may depend on the values. If it failed for another reason, running alone tells it.
            self._shapes_vary = True
            self._run_alone(loaded)

    def _run_alone(self, loaded: _Loaded) -> None:
        """Run and observe a sample by itself, and allocate buffers for others of its shape."""
        feeds = loaded.feeds
        inputs = {name: array[np.newaxis] for name, array in feeds.items()}
        if self._on_device:
            with naming([loaded.place.name], feeds):
                found = self._session.run_on_device(feeds)
            self._show({**{name: [found[name]] for name in found}, **inputs}, [loaded])
            return
        with naming([loaded.place.name], feeds), self._pace(1):
            given = self._session.run(feeds)
        outputs = {name: given[name] for name in given if name in self._wanted}
        text = any(array.dtype.hasobject for array in feeds.values())
        fills = outputs and not text and not self._shapes_vary
        self._buffers = ActivationBuffers(self._session, feeds, outputs) if fills else None
        self._show({**{name: outputs[name][np.newaxis] for name in outputs}, **inputs}, [loaded])

    @contextlib.contextmanager
    def _pace(self, num_samples: int) -> Iterator[None]:
        """Time the runs of some samples, to limit how many may be postponed."""
        started = time.perf_counter()
        yield
        seconds = max(time.perf_counter() - started, 1e-6)
        self._most_put_off = max(1, int(_SECONDS_PUT_OFF * num_samples / seconds))

    def _show(self, tensors: Mapping[str, Any], loaded: Sequence[_Loaded]) -> None:
        if loaded:
            wanted = {name: values for name, values in tensors.items() if name in self._wanted}
            self._observer.update(wanted, [one.place for one in loaded])


def _one_by_one(waiting: Sequence[_Loaded]) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the feeds; until the next is requested, each is recorded as the sample being run."""
    for loaded in waiting:
        with busy("ran", [loaded.place.name]):
            yield loaded.feeds


class Worker(Protocol[Taken_contra]):
    """Does the work of one thread."""

    def items_ahead(self, item: Taken_contra) -> int:
        """How many items must be queued for it so that it has work while the calling thread is busy.

        Args:
            item: the next item; if it is large, the queue may have to be shorter.
        """
        ...

    def take(self, item: Taken_contra) -> None:
        """Work on an item, or postpone it."""
        ...

    def finish(self) -> None:
        """Do the postponed work; there are no more items."""
        ...


def run_in_threads(
    workers: Sequence[Worker[Item]], items: Iterable[Item]
) -> Generator[Item, None, None]:
    """Give every item to one of `workers`, each called by one thread only; yield each item once given.

    Items are read in the calling thread, which readers may depend on. This thread is a worker too: it works
    while enough items are queued for the others, and after the last item on the rest of the queue. So there
    are no more threads than workers; more would move each other between cores and out of the caches.

    Raises:
        BaseException: the first error of a worker or of `items`, after all threads have ended.
    """
    mine, *others = workers
    queue: SimpleQueue[Item | None] = SimpleQueue()
    errors: list[BaseException] = []
    threads = [threading.Thread(target=_work, args=(w, queue, errors), daemon=True) for w in others]
    for thread in threads:
        thread.start()
    try:
        yield from _shared_out(items, mine, queue, len(others), errors)
        _work(mine, queue, errors)
    finally:
        for thread in threads:
            thread.join()
    if errors:
        # one that ends the program (Ctrl-C) comes first: it makes runs of other threads fail
        raise next((one for one in errors if not isinstance(one, Exception)), errors[0])


def _shared_out(
    items: Iterable[Item],
    mine: Worker[Item],
    queue: SimpleQueue[Item | None],
    num_others: int,
    errors: list[BaseException],
) -> Iterator[Item]:
    """Queue items, or work on one if enough are queued; at the end queue a None for each worker."""
    try:
        for item in items:
            if errors:
                break
            if queue.qsize() < mine.items_ahead(item) * num_others:
                queue.put(item)
            else:
                mine.take(item)
            yield item
    except BaseException as error:
        errors.append(error)  # so that workers drop the items still queued
        raise
    finally:
        for _ in range(num_others + 1):
            queue.put(None)


def _work(
    worker: Worker[Item],
    queue: SimpleQueue[Item | None],
    errors: list[BaseException],
) -> None:
    """Work on items until there are no more; after an error, discard them."""
    try:
        while (item := queue.get()) is not None:
            if not errors:
                worker.take(item)
        if not errors:
            worker.finish()
    except BaseException as error:  # noqa: BLE001 - raised in the calling thread
        errors.append(error)
