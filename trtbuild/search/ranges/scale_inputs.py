"""A Q/DQ network whose scales are inputs: one session runs it with any ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import is_constant
from trtbuild.model.edits import set_outputs
from trtbuild.model.traversal import values_by_name
from trtbuild.plan import symmetric
from trtbuild.quantization import insert, plan_with_ranges
from trtbuild.quantization.stage import symmetric_range
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from calibrators import Calibration
    from trtbuild.plan import Placement
    from trtbuild.runtime.session import Feeds

__all__ = ["OpenScales"]


class OpenScales:
    """TensorRT's form of a network, opened once, that takes the range of every tensor with each run.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        calibration: ranges of all its tensors; which tensors get a pair does not change with ranges.
        tensors: names of the tensors that a run gives.

    Raises:
        InputError: a tensor that needs a range has none.
        ExecutionError: ONNX Runtime cannot open it.
    """

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        calibration: Calibration,
        tensors: Sequence[str],
    ) -> None:
        quantized = insert(model, plan_with_ranges(model, placement, calibration, symmetric_range))
        self._inputs = _make_inputs(quantized)
        self._roots = placement.roots
        self._whole = {
            name: calibration.ranges[name].observed_amax
            for name in placement.unclipped
            if name in calibration.ranges
        }
        _give(quantized, tensors)
        self._session = open_session(quantized, Execution.FLOAT)

    def run(self, feeds: Feeds, amaxes: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: of the network.
            amaxes: tensor -> range, of every root of the placement; those that nothing may clip
                keep all that was seen.
        """
        scales, amaxes = {}, {**amaxes, **self._whole}
        for name, (given, dtype) in self._inputs.items():
            widest = max(amaxes[root] for root in self._roots[name])
            scales[given] = np.asarray(symmetric(widest).scale, dtype)
        return self._session.run({**feeds, **scales})

    def close(self) -> None:
        """Give the memory back."""
        self._session.close()


def _make_inputs(quantized: ir.Model) -> dict[str, tuple[str, np.dtype[np.generic]]]:
    """Make inputs of the scales of activations; quantized tensor -> name and type of its scale."""
    graph, found = quantized.graph, {}
    for node in list(graph):
        data = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if data is None or is_constant(data):
            continue
        scale = node.inputs[1]
        assert scale is not None
        assert scale.name is not None
        assert scale.dtype is not None
        del graph.initializers[scale.name]
        scale.const_value = None
        graph.inputs.append(scale)
        found[data.name or ""] = (scale.name, scale.dtype.numpy())
    return found


def _give(model: ir.Model, tensors: Sequence[str]) -> None:
    values = values_by_name(model.graph)
    set_outputs(model.graph, (values[name] for name in tensors))
