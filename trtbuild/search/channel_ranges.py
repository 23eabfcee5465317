"""Largest magnitude of every channel of some activations, over calibration images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.edits import tapped
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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
    session = open_session(tapped(model, tensors), Execution.REFERENCE)
    found: dict[str, np.ndarray] = {}
    for feed in feeds:
        for name, values in session.run(feed).items():
            if name in tensors and values.ndim >= 2:
                axes = tuple(axis for axis in range(values.ndim) if axis != 1)
                amax = np.abs(values.astype(np.float64)).max(axis=axes)
                found[name] = np.maximum(found.get(name, 0.0), amax)
    return found
