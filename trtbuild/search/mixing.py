"""Sees whether what a network gives for a sample depends on the other samples of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbuild.data import filled
from trtbuild.data.running import run_batch
from trtbuild.errors import ExecutionError
from trtbuild.gradients.rules import OF_UNKNOWN_SIZE
from trtbuild.model import static_batch
from trtbuild.model.attributes import is_random
from trtbuild.model.traversal import all_nodes, bodies
from trtbuild.search.rows import tensors_with_rows
from trtbuild.verification.matching import samples_first

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.data import Batch
    from trtbuild.runtime.session import Session

__all__ = ["mixed_output"]

# Differences below this share of an output (-40 dB) do not count: INT8 changes outputs more, and so may the
# last bits, which kernels round otherwise for another number of rows, where a TopK or a step follows.
_ROUNDING = 0.01


def mixed_output(model: ir.Model, session: Session, batch: Batch) -> str | None:
    """Return the name of an output in which a sample has other values beside other samples than alone.

    Alone means as in calibration, where a fixed batch is filled with copies of the sample. The first and the
    last sample are looked at; nothing is run if the graph tells that samples are independent. Outputs whose
    size depends on values, as of NonMaxSuppression, have no rows for each sample and are not looked at.

    Args:
        model: the float network.
        session: runs it.
        batch: samples.

    Returns:
        None if there is none, if the network draws random numbers, or if it cannot run on one sample.

    Raises:
        ExecutionError: the network cannot run on the batch.
    """
    no_rows = _of_unknown_size(model.graph)
    names = [
        spec.name
        for spec in session.outputs
        if spec.batch_axis is not None and spec.name not in no_rows
    ]
    if len(batch.names) < 2 or tensors_with_rows(model) >= set(names):
        return None
    if any(is_random(node) for node in all_nodes(model.graph)):
        return None
    count, (first, *_, last) = static_batch(model) or 1, batch.samples()
    together = samples_first(run_batch(session, batch), session.outputs)
    try:
        alone = [
            samples_first(session.run(filled(one.feeds, count, one.axes)), session.outputs)
            for one in (first, last)
        ]
    except ExecutionError:  # it takes an even number of samples, say
        return None
    for name in names:
        given, wanted = together[name], [found[name] for found in alone]
        if all(_are_equal(one, given) for one in wanted):
            continue  # of no sample: anchors, for example
        if not given.ndim or len(given) * count != len(wanted[0]) * len(batch.names):
            return name
        rows = len(wanted[0]) // count
        ends = (slice(rows), slice(len(given) - rows, None))
        if not all(_are_equal(one[:rows], given[end]) for one, end in zip(wanted, ends)):
            return name
    return None


def _of_unknown_size(graph: ir.Graph) -> set[str]:
    """Names of the tensors whose size may depend on values."""
    found: set[ir.Value | None] = set()
    for node in graph:
        inner = (node, *(one for body in bodies(node) for one in all_nodes(body)))
        if any(one.op_type in OF_UNKNOWN_SIZE or not found.isdisjoint(one.inputs) for one in inner):
            found.update(node.outputs)
    return {value.name or "" for value in found if value is not None}


def _are_equal(alone: np.ndarray, together: np.ndarray) -> bool:
    """Whether two outputs for one sample have the same values but for their last bits."""
    if alone.shape != together.shape or alone.dtype.kind != "f":
        return np.array_equal(alone, together)
    finite = np.isfinite(alone)
    if not np.array_equal(alone[~finite], together[~finite], equal_nan=True):
        return False
    wanted, given = alone[finite].astype(np.float64), together[finite].astype(np.float64)
    return bool(np.linalg.norm(wanted - given) <= _ROUNDING * np.linalg.norm(wanted))
