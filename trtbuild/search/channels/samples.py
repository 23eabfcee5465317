"""Draws a sample of each site's activations from all calibration images, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.calibration.observe import Observer, as_samples, observe
from trtbuild.model.edits import tapped
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.draws import generator_for

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from trtbuild.runtime.session import Feeds
    from trtbuild.search.channels.sites import Site

__all__ = ["ChannelSample", "channel_samples"]

# Values kept per tensor: enough to compute rounding errors to a percent or two, and few enough that trying a
# hundred scales takes tens of milliseconds.
_MOST_VALUES = 1 << 16
_FEWEST_ROWS = 64


@dataclass(frozen=True)
class ChannelSample:
    """A sample of one site's tensor.

    Attributes:
        values: some rows (pixels, tokens), float32 ``[rows, channels]``, drawn evenly from all images.
        low, high: the smallest and largest of all values of each channel, float64 ``[channels]``.
        num_samples: number of images.
    """

    values: NDArray[np.float32]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    num_samples: int

    @property
    def amax(self) -> NDArray[np.float64]:
        """Largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def channel_samples(
    model: ir.Model, sites: Sequence[Site], feeds: Iterable[Feeds], seed: int = 0
) -> dict[str, ChannelSample]:
    """Return tensor -> its sample, from one run over `feeds`.

    Raises:
        ModelError: the network cannot be run.
    """
    observer = _Samples(sites, seed)
    names = {site.tensor for site in sites}
    session = open_session(tapped(model, names), Execution.REFERENCE)
    observe(session, as_samples(feeds), [observer])
    return observer.found()


class _Samples(Observer):
    """Draws equally many rows of a tensor from every image, and halves them whenever there are too many."""

    def __init__(self, sites: Sequence[Site], seed: int) -> None:
        self._axes = {site.tensor: site.axis for site in sites}
        self._most = {s.tensor: max(_MOST_VALUES // s.channels, _FEWEST_ROWS) for s in sites}
        self._each = dict(self._most)
        self._random = {name: generator_for(name, seed) for name in self._axes}
        self._kept: dict[str, list[np.ndarray]] = {name: [] for name in self._axes}
        self._num_samples = 0
        self._low: dict[str, np.ndarray] = {}
        self._high: dict[str, np.ndarray] = {}

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors that it observes."""
        return self._axes.keys()

    def update(self, tensors: Mapping[str, Any], places: Sequence[object]) -> None:
        """Take the tensors of some samples; see `Observer`."""
        # a place has several images if the network's batch is fixed, or if the feeds are batches
        self._num_samples += sum(len(values) for values in next(iter(tensors.values())))
        del places
        for name, of_samples in tensors.items():
            for values in of_samples:
                rows = np.moveaxis(values, self._axes[name], -1)
                if rows.size:
                    self._add(name, rows.reshape(-1, rows.shape[-1]))

    def _add(self, name: str, rows: np.ndarray) -> None:
        low, high = rows.min(axis=0), rows.max(axis=0)
        self._low[name] = np.minimum(self._low.get(name, low), low)
        self._high[name] = np.maximum(self._high.get(name, high), high)
        taken = self._random[name].integers(len(rows), size=min(len(rows), self._each[name]))
        kept = self._kept[name]
        kept.append(rows[taken].astype(np.float32))
        while self._each[name] > 1 and sum(map(len, kept)) > self._most[name]:
            self._each[name] = -(-self._each[name] // 2)
            kept[:] = [part[: self._each[name]] for part in kept]

    def found(self) -> dict[str, ChannelSample]:
        """The sample of each tensor that is not empty."""
        return {
            name: ChannelSample(
                np.concatenate(parts),
                self._low[name].astype(np.float64),
                self._high[name].astype(np.float64),
                self._num_samples,
            )
            for name, parts in self._kept.items()
            if parts
        }
