"""Memory for the activations of several samples, which the network fills in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbuild.backends.onnxruntime import OnnxRuntimeSession

__all__ = ["ActivationRows", "Place"]

# Activations of several small samples are counted together: 8 MiB, which stay in the cache.
_VALUES_AT_A_TIME = 1 << 21


class Place(NamedTuple):
    """Where a sample stands in the data, for messages."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"the sample '{self.name}' (number {self.number})"


class ActivationRows:
    """One array a tensor, one row a sample; for samples of one shape.

    The arrays stay where they are, so nothing is allocated or copied for a sample. And they let several
    small samples be counted together: a tensor's table of counts is some hundred KiB, and the tables of
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
        size = sum(array.size for array in (*feeds.values(), *outputs.values()))
        self._capacity = max(1, _VALUES_AT_A_TIME // max(1, size))
        self._session = session
        self._inputs = {name: self._rows_like(array) for name, array in feeds.items()}
        self._outputs = {name: self._rows_like(array) for name, array in outputs.items()}
        self._runs: list[Callable[[], None]] = []
        self.places: list[Place] = []
        """Of the samples in the rows so far, in their order."""

    def _rows_like(self, array: np.ndarray) -> np.ndarray:
        return np.empty((self._capacity, *array.shape), array.dtype)

    @property
    def is_full(self) -> bool:
        """Whether there is no row left."""
        return len(self.places) == self._capacity

    def fits(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether a sample has the shapes of the first one."""
        return all(self._inputs[name].shape[1:] == array.shape for name, array in feeds.items())

    def fill(self, place: Place, feeds: Mapping[str, np.ndarray]) -> None:
        """Run one sample into the next row.

        Raises:
            ModelError: the network cannot be run, or an output's shape depends on more than the shapes
                of the inputs; no row is taken then.
        """
        row = len(self.places)
        if row == len(self._runs):
            inputs, outputs = _at(self._inputs, row), _at(self._outputs, row)
            self._runs.append(self._session.bind(inputs, outputs))
        for name, array in feeds.items():
            self._inputs[name][row] = array
        self._runs[row]()
        self.places.append(place)

    def take(self) -> tuple[dict[str, np.ndarray], list[Place]]:
        """The filled rows of every tensor, outputs first, and whose they are.

        The rows are free again: the next `fill` writes over them.
        """
        places, self.places = self.places, []
        arrays = {**self._outputs, **self._inputs}
        return {name: rows[: len(places)] for name, rows in arrays.items()}, places


def _at(arrays: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """Views of one row; of scalars too."""
    return {name: rows[row : row + 1].reshape(rows.shape[1:]) for name, rows in arrays.items()}
