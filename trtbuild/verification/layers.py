"""What every quantized layer and activation costs, in its own output and in the network's outputs.

They are ordered by their effect on the outputs where it is known: the outputs' SQNR with this layer alone in
INT8, and the gain with this layer alone in float (`trtbuild.search.effects` and `trtbuild.search.faults` find
both). With y a layer's float output and o its output when it alone is quantized (float inputs before its
Q), over all images:

    own        10 log10( sum y^2 / sum (y - o)^2 )       dB

An activation's noise is split by cause: clipping, for values beyond the clipping points, and rounding, for
all others. Weights are compared channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trtbuild.errors import DataError
from trtbuild.model.constants import array
from trtbuild.model.operators import weight_axis
from trtbuild.model.qdq import activation_pairs, float_twins, weight_behind
from trtbuild.model.traversal import nodes_by_name
from trtbuild.progress import silent
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.verification.intervals import decibels, inner_product
from trtbuild.verification.side_branches import side_branches

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from trtbuild.model.qdq import ActivationPair
    from trtbuild.progress import Progress
    from trtbuild.verification.compare import LabelledBatch
    from trtbuild.verification.side_branches import Tap

__all__ = [
    "ActivationError",
    "Effect",
    "LayerError",
    "LayerReport",
    "WeightError",
    "layer_errors",
    "worst_first",
]


@dataclass(frozen=True)
class Effect:
    """What one layer or activation in INT8 does to the outputs.

    Attributes:
        alone_sqnr_db: SQNR of the outputs when only this one is in INT8, dB.
        gained_db: by how much the outputs' SQNR rises when only this one is float, dB.
        measured: whether both were measured, for the worst part of any output; else both are first-order
            estimates for all parts together.
    """

    alone_sqnr_db: float
    gained_db: float
    measured: bool = False


@dataclass(frozen=True)
class WeightError:
    """A quantized weight compared with its float twin.

    Attributes:
        sqnr_db: of the whole weight.
        worst_channel: the output channel with the lowest SQNR.
        worst_channel_sqnr_db: its SQNR.
    """

    sqnr_db: float
    worst_channel: int
    worst_channel_sqnr_db: float


@dataclass(frozen=True)
class LayerError:
    """One layer.

    Attributes:
        node: name of the layer.
        op_type: its operator.
        module: the PyTorch module that it came from, or empty.
        tensor: the float tensor compared: the layer's output, after its Relu or Clip.
        own_sqnr_db: SQNR of that tensor, dB; see the module.
        effect: effect on the outputs; None where it is not known.
        weight: error of its weight; None without a weight, or where no float twin was found.
    """

    node: str
    op_type: str
    module: str
    tensor: str
    own_sqnr_db: float
    effect: Effect | None = None
    weight: WeightError | None = None


@dataclass(frozen=True)
class ActivationError:
    """One quantized activation, measured on its float values.

    Attributes:
        tensor: its name.
        scale: step size.
        low, high: clipping points, in the tensor's unit.
        sqnr_db: SQNR of the quantized tensor.
        clipped_percent: share of the values beyond a clipping point.
        clipping_noise_percent: share of the noise that those values cause; the rest is rounding.
        effect: effect on the outputs; None where it is not known.
    """

    tensor: str
    scale: float
    low: float
    high: float
    sqnr_db: float
    clipped_percent: float
    clipping_noise_percent: float
    effect: Effect | None = None


@dataclass(frozen=True)
class LayerReport:
    """Layers and activations, the most costly for the outputs first; see `worst_first`."""

    num_images: int
    layers: tuple[LayerError, ...]
    activations: tuple[ActivationError, ...]


def layer_errors(
    reference: ir.Model,
    quantized: ir.Model,
    batches: Iterable[LabelledBatch],
    progress: Progress = silent,
) -> LayerReport:
    """Measure every quantized layer and activation in its own output.

    Effects on the outputs stay unknown. Memory holds the outputs of all layers for one batch, twice.

    Args:
        reference: the float network that `quantized` was made from.
        quantized: a Q/DQ network, made by any tool.
        batches: a few dozen images are enough to order the layers.
        progress: called after every batch.

    Raises:
        ModelError: the two have no layer in common, or cannot be run.
        DataError: no batch.
    """
    kept = list(batches)
    num_images = sum(len(batch.names) for batch in kept)
    if not num_images:
        raise DataError("there are no samples to compare layers on. Give some with --data.")
    taps = side_branches(reference, quantized)
    pairs = activation_pairs(quantized)
    layers = {tap.node: _LayerNoise() for tap in taps.taps}
    activations = {name: _ActivationNoise(pairs[name]) for name in taps.activations}
    session = open_session(taps.reference, Execution.REFERENCE)
    for number, batch in enumerate(kept):
        found = {**batch.feeds, **session.run(batch.feeds)}
        for tap in taps.taps:
            layers[tap.node].add(found[tap.reference], found[tap.own])
        for name, twin in taps.activations.items():
            activations[name].add(found[twin])
        progress("layers", number + 1, len(kept))
    session.close()
    weights = weight_errors(reference, quantized)
    return LayerReport(
        num_images,
        worst_first(layers[tap.node].result(tap, weights.get(tap.node)) for tap in taps.taps),
        worst_first(noise.result(name) for name, noise in activations.items()),
    )


Entry = TypeVar("Entry", LayerError, ActivationError)


def worst_first(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return layers or activations, the worst effect on the outputs first; measured effects before estimates.

    Entries without a known effect (no gradient reaches them) come last, the lowest SQNR of their own first.
    """

    def place(entry: Entry) -> tuple[int, float, float]:
        own = entry.own_sqnr_db if isinstance(entry, LayerError) else entry.sqnr_db
        if entry.effect is None:
            return 2, 0.0, own
        return int(not entry.effect.measured), entry.effect.alone_sqnr_db, own

    return tuple(sorted(entries, key=place))


class _LayerNoise:
    """Sums of squares over all images."""

    def __init__(self) -> None:
        self._signal = self._own = 0.0

    def add(self, y: np.ndarray, o: np.ndarray) -> None:
        """Add the output `y` of the float layer, and `o` of the quantized one on the same inputs."""
        y, o = (array.astype(np.float64).ravel() for array in (y, o))
        self._signal += inner_product(y, y)
        error = y - o
        self._own += inner_product(error, error)

    def result(self, tap: Tap, weight: WeightError | None) -> LayerError:
        """Return the error over all images."""
        own = decibels(self._signal, self._own)
        return LayerError(tap.node, tap.op_type, tap.module, tap.reference, own, weight=weight)


class _ActivationNoise:
    """Noise of one Q/DQ pair, by cause."""

    def __init__(self, pair: ActivationPair) -> None:
        self._pair = pair
        self._signal = self._clipping = self._rounding = 0.0
        self._num_values = self._num_clipped = 0

    def add(self, values: np.ndarray) -> None:
        """Add float values of the tensor, of any shape."""
        pair = self._pair
        x = values.astype(np.float64).ravel()
        beyond = x - np.clip(x, pair.low, pair.high)
        clipped = beyond != 0.0
        inside = x[~clipped]
        # zero is on the grid, so rounding to multiples of the scale is what Q/DQ does inside
        rounding = inside - pair.scale * np.rint(inside / pair.scale)
        self._signal += inner_product(x, x)
        self._clipping += inner_product(beyond, beyond)
        self._rounding += inner_product(rounding, rounding)
        self._num_values += x.size
        self._num_clipped += int(np.count_nonzero(clipped))

    def result(self, name: str) -> ActivationError:
        """Return the error over all images, split by cause."""
        noise = self._clipping + self._rounding
        return ActivationError(
            tensor=name,
            scale=self._pair.scale,
            low=self._pair.low,
            high=self._pair.high,
            sqnr_db=decibels(self._signal, noise),
            clipped_percent=100.0 * self._num_clipped / max(self._num_values, 1),
            clipping_noise_percent=100.0 * self._clipping / noise if noise else 0.0,
        )


def weight_errors(reference: ir.Model, quantized: ir.Model) -> dict[str, WeightError]:
    """Compare every dequantized constant weight with the float weight of the same node."""
    found = {}
    nodes = nodes_by_name(quantized.graph)
    for name, twin in float_twins(quantized, reference).items():
        node = nodes[name]
        if len(node.inputs) < 2 or len(twin.inputs) < 2:
            continue
        weight = weight_behind(node.inputs[1])
        original = array(twin.inputs[1])
        if weight is None or original is None or original.shape != weight.shape:
            continue
        found[name] = _weight_error(original, weight, weight_axis(node, weight.ndim))
    return found


def _weight_error(x: np.ndarray, y: np.ndarray, axis: int | None) -> WeightError:
    x, y = x.astype(np.float64), y.astype(np.float64)
    rows = [
        np.moveaxis(array, axis or 0, 0).reshape(array.shape[axis or 0], -1) for array in (x, y)
    ]
    signal, noise = (rows[0] ** 2).sum(1), ((rows[0] - rows[1]) ** 2).sum(1)
    by_channel = [decibels(s, n) for s, n in zip(signal, noise)]
    worst = int(np.argmin(by_channel))
    return WeightError(decibels(signal.sum(), noise.sum()), worst, by_channel[worst])
