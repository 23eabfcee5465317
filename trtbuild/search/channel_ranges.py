"""Largest magnitude of every channel of some activations, over calibration images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.calibration.observe import Observer, as_samples, observe
from trtbuild.model.edits import tapped
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.runtime.session import Feeds

__all__ = ["channel_ranges"]


def channel_ranges(
    model: ir.Model, tensors: Collection[str], feeds: Iterable[Feeds]
) -> dict[str, np.ndarray]:
    """Return tensor name -> float64 ``[channels]``; channels are axis 1.

    Raises:
        ModelError: the network cannot be run.
    """
    observer = _ChannelRanges(tensors)
    session = open_session(tapped(model, tensors), Execution.REFERENCE)
    observe(session, as_samples(feeds), [observer])
    return observer.found


class _ChannelRanges(Observer):
    """Keeps the largest magnitude of every channel."""

    def __init__(self, tensors: Collection[str]) -> None:
        self._tensors = tensors
        self.found: dict[str, np.ndarray] = {}

    @property
    def tensors(self) -> Collection[str]:
        return self._tensors

    def update(self, tensors: Mapping[str, Any], places: Sequence[object]) -> None:
        del places
        for name, of_samples in tensors.items():
            for values in of_samples:
                if values.ndim >= 2:
                    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
                    amax = np.abs(values.astype(np.float64)).max(axis=axes)
                    self.found[name] = np.maximum(self.found.get(name, 0.0), amax)
