"""Memory for the activations of several samples; the network writes into it directly."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from trtbuild.runtime.onnxruntime import OnnxRuntimeSession

__all__ = ["ActivationBuffers"]

_ALIGNMENT = 64
# 16 MiB, enough to count some twenty small samples together.
_VALUES_AT_A_TIME = 1 << 22


class ActivationBuffers:
    """One array per tensor, with a row per sample; for samples of one shape.

    The arrays are reused, so no sample needs an allocation or a copy of its outputs. Several small samples
    can be counted together: a tensor's table of counts takes tens of KiB, and going through the tables of all
    tensors for every sample would evict each from the cache.

    Args:
        session: runs the network; other threads may use it at the same time.
        feeds: inputs of the first sample.
        outputs: the network's outputs for it.
    """

    def __init__(
        self,
        session: OnnxRuntimeSession,
        feeds: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
    ) -> None:
        # inputs exist three times: in the buffers, and in the samples of both halves that wait to be run
        in_memory = 3 * sum(array.size for array in feeds.values())
        in_memory += sum(array.size for array in outputs.values())
        self.capacity = max(1, _VALUES_AT_A_TIME // max(1, in_memory))
        self._session = session
        memory = _allocate([*feeds.values(), *outputs.values()], self.capacity)
        self._inputs = {name: next(memory) for name in feeds}
        self._outputs = {name: next(memory) for name in outputs}
        self._runs: list[Callable[[], None]] = []

    def fits(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Return whether a sample has the input shapes of the first one."""
        return all(self._inputs[name].shape[1:] == array.shape for name, array in feeds.items())

    def fill(self, samples: Iterable[Mapping[str, np.ndarray]]) -> int:
        """Run at most `capacity` samples that fit, and store them from the first row on.

        Returns:
            How many samples ran. On the next one the network fails, or has outputs of other shapes.
        """
        num_done = 0
        for row, feeds in enumerate(samples):
            for name, array in feeds.items():
                self._inputs[name][row] = array
            try:
                if row == len(self._runs):
                    bound = (_at(self._inputs, row), _at(self._outputs, row))
                    self._runs.append(self._session.bind(*bound))
                self._runs[row]()
            except ModelError:
                break
            num_done += 1
        return num_done

    def first(self, num_rows: int) -> dict[str, np.ndarray]:
        """Return views of the first rows, outputs first. The next `fill` overwrites them."""
        return {name: rows[:num_rows] for name, rows in {**self._outputs, **self._inputs}.items()}


def _allocate(arrays: Sequence[np.ndarray], num_rows: int) -> Iterator[np.ndarray]:
    """For each of `arrays`, rows of its shape, all in one piece of memory so that the system uses huge pages.

    The first access to a page costs microseconds, as much as counting some thousand values.
    """
    sizes = [-(-num_rows * array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
    memory = np.empty(sum(sizes), np.uint8)
    ends = itertools.accumulate(sizes)
    for array, size, end in zip(arrays, sizes, ends):
        start = end - size
        rows = memory[start : start + num_rows * array.nbytes].view(array.dtype)
        yield rows.reshape(num_rows, *array.shape)


def _at(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """Views of one row of each array; a scalar's has no axes."""
    return {name: rows[row : row + 1].reshape(rows.shape[1:]) for name, rows in arrays.items()}
