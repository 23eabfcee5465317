"""Bias correction: subtracts the mean error that quantizing a layer adds to each channel from its bias.

Rounding is unbiased over many values, but a weight is rounded only once: if inputs are positive on
average, as after a ReLU, its rounding error shifts the mean of the whole output channel. Let y be the
float output of a layer and o that of its quantized form, both on float inputs. Then

    b' = b - E[o - y]        per output channel, over images and pixels

Each layer is corrected for its own error only, so all layers are measured in one pass, and none corrects
the error of another. A MatMul is corrected in the Add of a constant after it.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019, section 4.2, in its empirical form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.calibration.observe import Observer, as_samples, observe
from trtbuild.model.attributes import constant_of
from trtbuild.model.edits import GraphWriter
from trtbuild.model.operators import WEIGHTED
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.channels.sites import added_behind
from trtbuild.verification.side_branches import own_output, side_branches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.runtime.session import Feeds
    from trtbuild.verification.side_branches import Tap

__all__ = ["MeanShift", "corrected", "measured_shifts"]


@dataclass(frozen=True)
class MeanShift:
    """The mean error of a quantized layer's output.

    Attributes:
        mean: mean error of each output channel, float64 ``[channels]``.
        share: share of the layer's squared error that correcting the means removes, 0 to 1.
    """

    mean: np.ndarray
    share: float


def measured_shifts(
    reference: ir.Model, quantized: ir.Model, feeds: Iterable[Feeds]
) -> dict[str, MeanShift]:
    """Return node name -> mean of (quantized - float) per output channel, each layer on float inputs.

    This takes one pass over the images, in which every layer is computed twice.

    Args:
        reference: the float network that `quantized` was made from.
        quantized: the network with Q/DQ.
        feeds: calibration images.

    Raises:
        ModelError: the two have no layer in common.
    """
    taps = side_branches(reference, quantized, measured=own_output)
    wanted = [tap for tap in taps.taps if tap.op_type in WEIGHTED]
    observer = _MeanShifts(wanted)
    session = open_session(taps.reference, Execution.REFERENCE)
    observe(session, as_samples(feeds), [observer])
    session.close()
    return observer.shifts()


class _MeanShifts(Observer):
    """Sums the error of each output channel of each quantized layer."""

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = taps
        self._sums: dict[str, np.ndarray] = {}
        self._squares: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    @property
    def tensors(self) -> Collection[str]:
        """Names of the tensors that it observes."""
        return [name for tap in self._taps for name in (tap.own, tap.reference)]

    def update(self, tensors: Mapping[str, Any], places: Sequence[object]) -> None:
        """Take the tensors of some samples; see `Observer`."""
        for tap in self._taps:
            for row in range(len(places)):
                shift = tensors[tap.own][row].astype(np.float64) - tensors[tap.reference][row]
                channels = shift.ndim - 1 if tap.op_type == "MatMul" else 1
                axes = tuple(axis for axis in range(shift.ndim) if axis != channels)
                self._sums[tap.node] = self._sums.get(tap.node, 0.0) + shift.sum(axis=axes)
                self._squares[tap.node] = self._squares.get(tap.node, 0.0) + float((shift**2).sum())
                count = shift.size // shift.shape[channels]
                self._counts[tap.node] = self._counts.get(tap.node, 0) + count

    def shifts(self) -> dict[str, MeanShift]:
        """Return layer -> the mean shift of each channel, and its share of the error."""
        found = {}
        for name, total in self._sums.items():
            mean = total / self._counts[name]
            taken = float((mean**2).sum()) * self._counts[name]
            found[name] = MeanShift(mean, taken / max(self._squares[name], taken, 1e-300))
        return found


def corrected(model: ir.Model, shifts: Mapping[str, np.ndarray]) -> ir.Model:
    """Return a copy of the float network `model` with `shifts` subtracted from the biases.

    Layers without a bias get one. A layer whose bias is not a constant vector, and a MatMul without an Add
    of a constant after it, do not change.
    """
    model = model.clone()
    writer = GraphWriter(model)
    for node in model.graph:
        shift = shifts.get(node.name or "")
        if shift is not None and node.op_type in WEIGHTED:
            _subtract(writer, node, shift)
    return model


def _subtract(writer: GraphWriter, node: ir.Node, shift: np.ndarray) -> None:
    if node.op_type == "MatMul":
        behind = added_behind(node)
        if behind is not None:
            added, index = behind
            writer.set_constant(added, index, constant_of(added, index) - shift, "corrected")
        return
    bias = constant_of(node, 2)
    if bias is None:
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            return
        bias = np.zeros(shift.shape)
    if node.op_type == "Gemm":
        shift = shift / node.attributes.get_float("beta", 1.0)
    writer.set_constant(node, 2, bias - shift, "corrected")
