"""A Q/DQ network with its scales as inputs: one session runs it with any ranges, or with several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model.constants import array, is_constant
from trtbuild.model.edits import set_outputs
from trtbuild.model.graph_library import ir
from trtbuild.model.names import Names
from trtbuild.model.traversal import values_by_name
from trtbuild.plan import symmetric
from trtbuild.quantization import insert, plan_with_ranges
from trtbuild.quantization.stage import symmetric_range
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.together import gain_together, in_rows, run_alone, run_together, stacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from calibrators import Calibration
    from trtbuild.plan import Placement
    from trtbuild.runtime.session import Feeds

__all__ = ["OpenScales"]

# Most bytes of all quantized tensors together; a run holds only some of them at a time.
_ROOM = 1 << 27
_FLOAT_BYTES = 4


class OpenScales:
    """TensorRT's form of a network, opened once; each run gets the ranges of all tensors.

    If images are faster together (`trtbuild.search.together`), do not mix, and every quantized tensor has one
    row per image, each row gets a scale of its own: a batch then has each image several times, once for each
    choice of ranges.

    Args:
        model: the float network.
        placement: where its Q/DQ go.
        calibration: ranges of all its tensors; other ranges do not change which tensors get a Q/DQ pair.
        tensors: names of the tensors that a run returns.

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
        pairs = _pairs(quantized)
        rounded = (node.inputs[0].name or "" for node in pairs if node.inputs[0] is not None)
        are_together = gain_together(model, tensors)
        self._is_by_row = (
            are_together and _have_no_zero_points(pairs) and gain_together(model, rounded)
        )
        self._run_all = run_together if are_together else run_alone
        self._zeros = _rows_of_zeros(quantized, pairs) if self._is_by_row else None
        self._inputs = _make_inputs(quantized, pairs, by_row=self._is_by_row)
        self._roots = placement.roots
        self._whole = {
            name: calibration.ranges[name].observed_amax
            for name in placement.unclipped
            if name in calibration.ranges
        }
        self._row_bytes = _FLOAT_BYTES * sum(
            _values_of_a_sample(calibration, self._roots[name]) for name in self._inputs
        )
        _give(quantized, tensors)
        self._session = open_session(quantized, Execution.FLOAT)

    def choices_at_a_time(self, images: Sequence[Feeds]) -> int:
        """Return how many choices of ranges are run together: 1, or as many as memory allows."""
        if not self._is_by_row or stacked(images) is None:
            return 1
        return int(max(1, _ROOM // max(1, self._row_bytes * len(images))))

    def outputs(
        self, images: Sequence[Feeds], choices: Sequence[Mapping[str, float]]
    ) -> list[list[Mapping[str, np.ndarray]]]:
        """Return for each choice of ranges the outputs of each image, from one run if choices share it.

        Args:
            images: each with a batch of one.
            choices: each maps every root of the placement to its range. Unclipped roots keep the range of
                all values seen.
        """
        rows = stacked(list(images) * len(choices)) if self._is_by_row else None
        if rows is not None and len(images) > 1:
            scales = self._scales([one for one in choices for _ in images])
            count = len(images)
            outputs = in_rows(self._session.run({**rows, **scales}), count * len(choices))
            return [outputs[start : start + count] for start in range(0, len(outputs), count)]
        return [
            self._run_all(lambda feeds: self._run(feeds, choice), images)  # noqa: B023
            for choice in choices
        ]

    def _run(self, feeds: Feeds, choice: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Run once, with the same ranges for all rows."""
        count = len(next(iter(feeds.values()))) if self._is_by_row else 1
        return self._session.run({**feeds, **self._scales([choice] * count)})

    def _scales(self, choices: Sequence[Mapping[str, float]]) -> Feeds:
        """The values of the scale inputs, with one choice of ranges per row; without rows, of the first."""
        found: dict[str, np.ndarray] = {}
        each = [{**choice, **self._whole} for choice in choices]
        for name, (given, dtype) in self._inputs.items():
            scales = [symmetric(max(one[root] for root in self._roots[name])).scale for one in each]
            found[given] = np.asarray(scales if self._is_by_row else scales[0], dtype)
        if self._zeros is not None:
            found[self._zeros] = np.zeros(len(each), np.int8)
        return found

    def close(self) -> None:
        """Free the memory."""
        self._session.close()


def _pairs(quantized: ir.Model) -> list[ir.Node]:
    """The QuantizeLinear of each activation."""
    return [
        node
        for node in quantized.graph
        if node.op_type == "QuantizeLinear" and not is_constant(node.inputs[0])
    ]


def _have_no_zero_points(pairs: Iterable[ir.Node]) -> bool:
    """Whether all tensors are rounded to int8 with zero point 0."""
    zeros = [array(node.inputs[2]) for node in pairs]
    return all(one is not None and one.dtype == np.int8 and not one.any() for one in zeros)


def _rows_of_zeros(quantized: ir.Model, pairs: Iterable[ir.Node]) -> str:
    """Let all pairs read per-row zero points from one new input; return its name."""
    name = Names(quantized).fresh("zero_points")
    zeros = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape([None]))
    quantized.graph.inputs.append(zeros)
    for node in pairs:
        for one in [node, *node.outputs[0].consumers()]:
            one.replace_input_with(2, zeros)
            one.attributes["axis"] = ir.AttrInt64("axis", 0)
    return name


def _make_inputs(
    quantized: ir.Model, pairs: Iterable[ir.Node], *, by_row: bool
) -> dict[str, tuple[str, np.dtype[np.generic]]]:
    """Turn the scales of activations into inputs; return quantized tensor -> name and type of its scale."""
    graph, found = quantized.graph, {}
    for node in pairs:
        data, scale = node.inputs[0], node.inputs[1]
        assert data is not None
        assert scale is not None
        assert scale.name is not None
        assert scale.dtype is not None
        del graph.initializers[scale.name]
        scale.const_value = None
        if by_row:
            scale.shape = ir.Shape([None])
        graph.inputs.append(scale)
        found[data.name or ""] = (scale.name, scale.dtype.numpy())
    return found


def _values_of_a_sample(calibration: Calibration, roots: Iterable[str]) -> float:
    """How many values a quantized tensor has for one sample, by the counts of its largest root."""
    num_samples = max(1, int(calibration.provenance.get("num_samples", 1)))
    counted = (calibration.ranges[root].num_values for root in roots if root in calibration.ranges)
    return max(counted, default=0) / num_samples


def _give(model: ir.Model, tensors: Sequence[str]) -> None:
    values = values_by_name(model.graph)
    set_outputs(model.graph, (values[name] for name in tensors))
