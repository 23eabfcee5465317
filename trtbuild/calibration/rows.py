"""Memory for the activations of several samples, which the network fills in place."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trtbuild.backends.onnxruntime import OnnxRuntimeSession

__all__ = ["ActivationRows", "Place", "Rows"]

_ALIGNMENT = 64
# 16 MiB, so that some ten small samples of each half are counted together.
_VALUES_AT_A_TIME = 1 << 22


class Place(NamedTuple):
    """Where a sample stands in the data, for messages."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"the sample '{self.name}' (number {self.number})"


class Rows(NamedTuple):
    """Activations of some samples of one half of the data: tensor -> array of a row for each."""

    arrays: Mapping[str, np.ndarray]
    places: list[Place]


class ActivationRows:
    """One array a tensor, one row a sample; for samples of one shape.

    The arrays stay where they are, so nothing is allocated or copied for a sample. And they let several
    small samples be counted together: a tensor's table of counts is some hundred KiB, and the tables of
    all tensors, needed one after the other for every sample, would throw each other out of the cache.

    Samples of the first half of the data fill rows from the front, those of the second from the back.

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
        size = sum(array.size for array in (*feeds.values(), *outputs.values()))
        self._capacity = max(1, _VALUES_AT_A_TIME // max(1, size))
        self._session = session
        memory = _allocate([*feeds.values(), *outputs.values()], self._capacity)
        self._inputs = {name: next(memory) for name in feeds}
        self._outputs = {name: next(memory) for name in outputs}
        self._runs: dict[int, Callable[[], None]] = {}
        self._places: tuple[list[Place], list[Place]] = ([], [])

    @property
    def is_full(self) -> bool:
        """Whether there is no row left."""
        return sum(map(len, self._places)) == self._capacity

    def fits(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether a sample has the shapes of the first one."""
        return all(self._inputs[name].shape[1:] == array.shape for name, array in feeds.items())

    def fill(self, half: int, place: Place, feeds: Mapping[str, np.ndarray]) -> None:
        """Run one sample of half 0 or 1 into a free row.

        Raises:
            ModelError: the network cannot be run, or an output's shape depends on more than the shapes
                of the inputs; no row is taken then.
        """
        taken = len(self._places[half])
        row = self._capacity - 1 - taken if half else taken
        if row not in self._runs:
            inputs, outputs = _at(self._inputs, row), _at(self._outputs, row)
            self._runs[row] = self._session.bind(inputs, outputs)
        for name, array in feeds.items():
            self._inputs[name][row] = array
        self._runs[row]()
        self._places[half].append(place)

    def take(self) -> tuple[Rows, Rows]:
        """The filled rows of both halves, outputs first. The next `fill` may write over them."""
        (first, second), self._places = self._places, ([], [])
        arrays = {**self._outputs, **self._inputs}
        start = self._capacity - len(second)
        return (
            Rows({name: rows[: len(first)] for name, rows in arrays.items()}, first),
            Rows({name: rows[start:] for name, rows in arrays.items()}, second[::-1]),
        )


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
