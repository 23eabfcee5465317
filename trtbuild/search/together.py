"""Images are run one by one, or together where weights are most of the cost and so are read once for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.model import input_specs, output_specs
from trtbuild.model.attributes import attribute, normal_axis
from trtbuild.model.outside_weights import MAPPED_LIMIT
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import has_bodies
from trtbuild.model.writing import num_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.runtime.session import Feeds

__all__ = ["batch_of", "gain_together", "in_rows", "outputs_of", "rows_are_apart", "stacked"]

_FLOAT_BYTES = 4

# What may tell rows apart, or bring them together, whatever its dims look like.
_ACROSS_ROWS = frozenset({
    "CumProd", "CumSum", "DFT", "Einsum", "EyeLike", "GRU", "GatherND", "LSTM", "MeanVarianceNormalization",
    "RNN", "ReverseSequence", "ScatterND", "Trilu", "Unique",
})  # fmt: skip
# Operators that keep the dims while they work along an axis -> which, where that is not written.
_AXES = {
    "Gather": 0, "GatherElements": 0, "Hardmax": -1, "LayerNormalization": -1, "LogSoftmax": -1,
    "LpNormalization": -1, "ScatterElements": 0, "Softmax": -1,
}  # fmt: skip


def outputs_of(
    model: ir.Model,
    run: Callable[[Feeds], Mapping[str, np.ndarray]],
    images: Sequence[Feeds],
) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each image.

    Images of one shape are run together if the network has many weights and an open batch in front of every
    input, and if each output then has as many rows as there are images. Values may differ in their last bits
    from those of an image that is run alone.

    Args:
        model: the float network that `run` runs a form of.
        run: runs it once.
        images: each with a batch of one.
    """
    together = stacked(images) if len(images) > 1 and gain_together(model) else None
    found = None if together is None else in_rows(run(together), len(images))
    return [run(feeds) for feeds in images] if found is None else found


def in_rows(outputs: Mapping[str, np.ndarray], count: int) -> list[Mapping[str, np.ndarray]] | None:
    """Return the outputs of each of `count` images of one batch; None where an output has other rows."""
    if not all(one.ndim and len(one) == count for one in outputs.values()):
        return None
    return [
        {name: one[place : place + 1] for name, one in outputs.items()} for place in range(count)
    ]


def gain_together(model: ir.Model, outputs: Iterable[str] = ()) -> bool:
    """Return whether images of a network are to be run together: it reads more than it computes.

    Args:
        model: the float network.
        outputs: what else must have an open batch in front, besides every input; names of tensors.
    """
    if num_weights(model) * _FLOAT_BYTES <= MAPPED_LIMIT:
        return False
    wanted, known = set(outputs), output_specs(model)
    ends = [one for one in known if one.name in wanted]
    specs = [*input_specs(model), *ends]
    is_open = all(one.batch_axis == 0 and not isinstance(one.batch, int) for one in specs)
    return is_open and len(ends) == len(wanted)


def batch_of(model: ir.Model) -> str:
    """Return the name of the first axis that all inputs have; empty where there is no such name."""
    first = {(dims(value) or (None,))[0] for value in model.graph.inputs}
    name = next(iter(first)) if len(first) == 1 else None
    return name if isinstance(name, str) else ""


def rows_are_apart(model: ir.Model) -> bool:
    """Return whether no image of a batch has a say in what is computed of another.

    Known where all that comes from an input has the batch in front, and there alone, and nothing works along
    it: so a mean over the batch, a product of two images and a running sum are found.

    Args:
        model: its dims have been inferred.
    """
    batch = batch_of(model)
    rows = set(model.graph.inputs)
    if not batch or any(not _has_rows(value, batch) for value in rows):
        return False
    for node in model.graph:
        if has_bodies(node):
            return False
        if (node.domain, node.op_type) == ("", "Shape") or rows.isdisjoint(node.inputs):
            continue
        made = {one for one in node.outputs if one.uses() or one.is_graph_output()}
        if _works_across(node, rows) or any(not _has_rows(one, batch) for one in made):
            return False
        rows |= made
    return True


def _has_rows(value: ir.Value, batch: str) -> bool:
    known = dims(value) or (None,)
    return known[0] == batch and batch not in known[1:]


def _works_across(node: ir.Node, rows: Collection[ir.Value | None]) -> bool:
    if node.domain or node.op_type in _ACROSS_ROWS:
        return True
    along = _AXES.get(node.op_type)
    if along is None or node.inputs[0] not in rows:
        return False  # a table that rows are looked up in has none itself
    known = dims(node.inputs[0])
    return known is None or normal_axis(int(attribute(node, "axis", along)), len(known)) == 0


def stacked(images: Sequence[Feeds]) -> Feeds | None:
    """Return the images as one batch; None where one is no batch of one, or their shapes differ."""
    first = images[0]
    for feeds in images:
        for name, array in feeds.items():
            if array.ndim == 0 or len(array) != 1 or array.shape != first[name].shape:
                return None
    return {name: np.concatenate([feeds[name] for feeds in images]) for name in first}
