"""The cost of the 2:4 zeros of each layer, for a network whose dense form is known."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trtbuild.artifact import Record
from trtbuild.backends.tensorrt.sparsity import with_pattern
from trtbuild.errors import ModelError
from trtbuild.model.qdq import float_twins
from trtbuild.progress import Progress, silent
from trtbuild.search.effects import output_effects
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import Batch

__all__ = ["with_cost_of_zeros"]

_log = logging.getLogger(__name__)


def with_cost_of_zeros(
    artifact: Artifact, few: Sequence[Batch], progress: Progress = silent
) -> Artifact:
    """Record the effect of each layer's 2:4 zeros on the outputs, the most costly layer first.

    Estimated to first order, in float, against the module as it was loaded: the SQNR with only this layer's
    zeros, and the gain if all zeros except this layer's are made. Nothing is recorded if no layer has got the
    pattern since loading, or if layers have another shape because channels were pruned, too.

    Args:
        artifact: the network, with the module as it was loaded.
        few: the batches to run.
        progress: called after every run.
    """
    dense = artifact.reference
    if dense is None or not few:
        return artifact

    def made_sparse(model: ir.Model) -> Iterator[ir.Node]:
        twins = float_twins(model, dense)
        for node in model.graph:
            twin = twins.get(node.name or "")
            if twin is not None and with_pattern(node) and not with_pattern(twin):
                yield node

    num_sparse = sum(1 for _ in made_sparse(artifact.source))
    if not num_sparse:
        return artifact
    try:
        found = output_effects(
            dense, artifact.source, [one.feeds for one in few], progress, layers=made_sparse
        ).layers
    except ModelError as error:
        _log.debug("what single zeros cost is not known: %s", error)
        found = {}
    if not found:
        return artifact
    ranked = sorted(found.items(), key=lambda one: one[1].alone_sqnr_db)
    rows = [
        {"node": node, "alone_sqnr_db": one.alone_sqnr_db, "gained_db": one.gained_db}
        for node, one in ranked
    ]
    summary = f"the 2:4 zeros of '{ranked[0][0]}' cost the most of {counted(num_sparse, 'layer')}"
    return artifact.having(Record("zeros", summary, {"rows": rows}))
