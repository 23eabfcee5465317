"""Memory for the activations of several samples, which the network fills in place."""

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
# 16 MiB, so that some twenty small samples are counted together.
_VALUES_AT_A_TIME = 1 << 22


class ActivationBuffers:
    """One array a tensor, one row a sample; for samples of one shape.

    The arrays stay where they are, so nothing is allocated or copied for a sample. And they let several
    small samples be counted together: a tensor's table of counts is tens of KiB, and the tables of
    all tensors, needed one after the other for every sample, would throw each other out of the cache.

    Args:
        session: runs the network; other threads may use it at the same time.
        feeds: of the first sample.
        outputs: what the network gave for it.
    """

    def __init__(
        self,
        session: OnnxRuntimeSession,
        feeds: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
    ) -> None:
        # samples of two halves of the data wait to be run, besides those that are
        in_memory = 3 * sum(array.size for array in feeds.values())
        in_memory += sum(array.size for array in outputs.values())
        self.capacity = max(1, _VALUES_AT_A_TIME // max(1, in_memory))
        self._session = session
        memory = _allocate([*feeds.values(), *outputs.values()], self.capacity)
        self._inputs = {name: next(memory) for name in feeds}
        self._outputs = {name: next(memory) for name in outputs}
        self._runs: list[Callable[[], None]] = []

    def fits(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Return whether a sample has the shapes of the first one."""
        return all(self._inputs[name].shape[1:] == array.shape for name, array in feeds.items())

    def fill(self, samples: Iterable[Mapping[str, np.ndarray]]) -> int:
        """Run samples that fit, at most `capacity`, from the first row on.

        Returns:
            For how many it went well. On the one behind those the network cannot be run, or gives outputs
            of other shapes.
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
        """Return what the first rows hold, outputs first. The next `fill` writes over it."""
        return {name: rows[:num_rows] for name, rows in {**self._outputs, **self._inputs}.items()}


def _allocate(arrays: Sequence[np.ndarray], num_rows: int) -> Iterator[np.ndarray]:
    """Rows like each of `arrays`, all in one piece of memory, so that the system gives large pages.

    The first touch of a page costs microseconds, as much as counting some thousand values.
    """
    sizes = [-(-num_rows * array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays]
    memory = np.empty(sum(sizes), np.uint8)
    ends = itertools.accumulate(sizes)
    for array, size, end in zip(arrays, sizes, ends):
        start = end - size
        rows = memory[start : start + num_rows * array.nbytes].view(array.dtype)
        yield rows.reshape(num_rows, *array.shape)


def _at(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """Views of one row; of scalars too."""
    return {name: rows[row : row + 1].reshape(rows.shape[1:]) for name, rows in arrays.items()}
