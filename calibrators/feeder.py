"""Feeds batches to the GPU: cut to the network's shape, read ahead, staged in pinned memory.

While TensorRT works on one batch, a thread reads the next and copies it into page-locked host memory; when
TensorRT asks, one copy per input brings it into the input's device buffer. Each input takes two pinned
buffers and one device buffer; `close` frees them all.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from calibrators.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["BatchFeeder", "DeviceBuffer", "DeviceMemory", "InputForm", "PinnedArray"]

_SLOTS = 2
_POLL_S = 0.1


class DeviceBuffer(Protocol):
    """Memory on the GPU."""

    @property
    def address(self) -> int:
        """Device address of its first byte."""
        ...

    @property
    def free(self) -> Callable[[], None]:
        """Function that gives the memory back."""
        ...


class PinnedArray(Protocol):
    """Page-locked host memory as an array."""

    @property
    def array(self) -> np.ndarray:
        """The memory as an array, uint8 ``[nbytes]``."""
        ...

    @property
    def free(self) -> Callable[[], None]:
        """Function that gives the memory back."""
        ...


class DeviceMemory(Protocol):
    """Allocates and fills device memory; `trtbuild.runtime.cuda.Device` does."""

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Return device memory."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> PinnedArray:
        """Return page-locked host memory as an array."""
        ...

    def upload(self, buffer: Any, array: np.ndarray) -> None:
        """Copy a contiguous array into device memory and wait until it is there."""
        ...


@dataclass(frozen=True)
class InputForm:
    """Shape and dtype of one input's batch, exactly as TensorRT reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class BatchFeeder:
    """Copies batches to the GPU and reads one batch ahead.

    A reader's batches may be larger or smaller than the network's: their rows (axis 0) are regrouped. Rows
    that do not fill a last batch are left out and counted, because TensorRT always reads a whole batch.

    Args:
        batches: input name -> array, in order; read in a separate thread.
        forms: shape and dtype of each input. Arrays are converted to the dtype.
        memory: allocates the buffers; used in the calling thread only.

    Attributes:
        num_batches: batches copied to the GPU so far.
        num_samples_left_out: samples of a last, incomplete batch; known once the data has ended.
        is_exhausted: whether all data was copied.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, np.ndarray]],
        forms: Mapping[str, InputForm],
        memory: DeviceMemory,
    ) -> None:
        self.num_batches = 0
        self.num_samples_left_out = 0
        self.is_exhausted = False
        self._forms = dict(forms)
        self._memory = memory
        self._slots = [
            {name: memory.pinned(form.shape, form.dtype) for name, form in self._forms.items()}
            for _ in range(_SLOTS)
        ]
        self._buffers = {
            name: memory.allocate(slot.array.nbytes) for name, slot in self._slots[0].items()
        }
        self._empty: queue.Queue[int] = queue.Queue()
        self._full: queue.Queue[int | BaseException | None] = queue.Queue()
        for index in range(_SLOTS):
            self._empty.put(index)
        self._ahead: list[int | BaseException | None] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._stage, args=(batches,), daemon=True)
        self._thread.start()

    def next(self, names: Sequence[str]) -> list[int] | None:
        """Copy the next batch into device memory.

        Args:
            names: the inputs, in the order of the addresses to return.

        Returns:
            One device address per name, valid until the next call; None when the data has ended.

        Raises:
            ObservationError: a batch does not fit the network, or an input has no data.
            Exception: anything that reading the data raised.
        """
        unknown = [name for name in names if name not in self._buffers]
        if unknown:
            raise ObservationError(f"there is no calibration data for the input '{unknown[0]}'.")
        ready = self._look()
        if ready is None:
            self.is_exhausted = True
            return None
        self._ahead = []
        for name, staged in self._slots[ready].items():
            self._memory.upload(self._buffers[name], staged.array)
        self._empty.put(ready)
        self.num_batches += 1
        return [self._buffers[name].address for name in names]

    def has_more(self) -> bool:
        """Return whether a batch is left; waits for the reading thread.

        Raises:
            ObservationError: the next batch does not fit the network.
            Exception: anything that reading the data raised.
        """
        return self._look() is not None

    def close(self) -> None:
        """Stop reading and free all memory. Safe to call twice."""
        self._stopping.set()
        self._thread.join()
        for slot in self._slots:
            for staged in slot.values():
                staged.free()
        for buffer in self._buffers.values():
            buffer.free()
        self._slots, self._buffers = [], {}

    def __enter__(self) -> BatchFeeder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> int | None:
        """Return the slot of the next batch without taking it; None at the end."""
        if not self._ahead:
            self._ahead.append(self._full.get())
        ready = self._ahead[0]
        if isinstance(ready, BaseException):
            raise ready
        return ready

    def _stage(self, batches: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Copy batches into pinned memory until the data ends; runs in the reading thread."""
        try:
            for batch in self._cut(batches):
                index = self._take_empty()
                if index is None:
                    return
                for name, staged in self._slots[index].items():
                    staged.array[...] = batch[name]
                self._full.put(index)
            self._full.put(None)
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            self._full.put(error)

    def _take_empty(self) -> int | None:
        while not self._stopping.is_set():
            try:
                return self._empty.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None

    def _cut(
        self, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> Iterator[Mapping[str, np.ndarray]]:
        rest: dict[str, np.ndarray] = {}
        for number, batch in enumerate(batches):
            arrays = {name: self._checked(name, batch, number) for name in self._forms}
            if not rest and all(a.shape == self._forms[n].shape for n, a in arrays.items()):
                yield arrays
                continue
            size = self._batch_size()
            _check_rows(arrays, number)
            rest = {n: np.concatenate([rest[n], a]) if rest else a for n, a in arrays.items()}
            while min(len(array) for array in rest.values()) >= size:
                yield {name: array[:size] for name, array in rest.items()}
                rest = {name: array[size:] for name, array in rest.items()}
        self.num_samples_left_out = min((len(array) for array in rest.values()), default=0)

    def _batch_size(self) -> int:
        sizes = {form.shape[:1] for form in self._forms.values()}
        if len(sizes) > 1 or () in sizes:
            shapes = ", ".join(f"'{name}' {form.shape}" for name, form in self._forms.items())
            raise ObservationError(
                f"calibration batches cannot be cut to the network's batch size: its inputs {shapes} "
                "share no batch axis. Give batches of exactly these shapes."
            )
        return int(next(iter(sizes))[0])

    def _checked(self, name: str, batch: Mapping[str, np.ndarray], number: int) -> np.ndarray:
        if name not in batch:
            raise ObservationError(
                f"calibration batch {number} has no array for the input '{name}'."
            )
        form = self._forms[name]
        array = np.asarray(batch[name])
        if array.ndim != len(form.shape) or array.shape[1:] != form.shape[1:]:
            raise ObservationError(
                f"calibration batch {number}, input '{name}': shape {array.shape} does not fit "
                f"{form.shape}, which the network is calibrated with."
            )
        return array


def _check_rows(arrays: Mapping[str, np.ndarray], number: int) -> None:
    """Check that all inputs of a batch have as many rows, so that rows of one sample stay together."""
    (first, rows), *others = ((name, len(array)) for name, array in arrays.items())
    for name, count in others:
        if count != rows:
            raise ObservationError(
                f"calibration batch {number} has {rows} {'row' if rows == 1 else 'rows'} of input "
                f"'{first}' and {count} of '{name}'; "
                "give each input one row per sample."
            )
