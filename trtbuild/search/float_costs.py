"""Cost of a group in float: milliseconds per run if layers can be timed, else multiply-accumulates.

A layer's time says more than its work: a depthwise convolution has few products but takes long, and a large
product with few rows waits for its weights. So the backend's profiler times each layer twice, in turns: in
the INT8 network and in the float one. A group's cost is the difference, plus the cost of one more change of
precision: the time of a Q or DQ that is not fused into another kernel.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import TrtbuildError
from trtbuild.latency.layer_times import measure_in_turns
from trtbuild.model.qdq import is_qdq
from trtbuild.model.traversal import label
from trtbuild.plan import GroupKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.latency.layer_times import LayerTimes, ProfiledSession
    from trtbuild.plan import Group
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.candidate import Candidate

__all__ = [
    "UNTIMED",
    "FloatCosts",
    "LayerTiming",
    "cost_shares",
    "float_costs",
    "share_costs",
]

_log = logging.getLogger(__name__)

_RUNS = 48
_ROUNDS = 8
# Least cost of a change of precision, which is never free even if the profiler's clock shows 0.
_LEAST_MS = 1e-4


@dataclass(frozen=True)
class LayerTiming:
    """How the backend times layers.

    Attributes:
        source: name of the profiler, in words.
        form: returns the Q/DQ network that this backend runs, from a quantized artifact.
        open: opens a network, float or with Q/DQ, for profiling with batches like the one given; None if
            layers cannot be timed.
        why_not: why they cannot be timed.
    """

    source: str = ""
    form: Callable[[Artifact], ir.Model] | None = None
    open: Callable[[ir.Model, Feeds], ProfiledSession] | None = None
    why_not: str = ""


UNTIMED = LayerTiming(why_not="no backend was named")
"""Nothing is timed."""


@dataclass(frozen=True)
class FloatCosts:
    """Costs of groups in float.

    Attributes:
        each: group -> its cost, 0 or more.
        change: the cost of one more change of precision.
        basis: unit and source of the costs, in words.
    """

    each: Mapping[str, float]
    change: float
    basis: str

    def of(self, group: str) -> float:
        """Return the cost of `group` in float, including the change of precision."""
        return self.each[group] + self.change


def cost_shares(groups: Sequence[Group]) -> dict[str, float]:
    """Return each group's share of all multiply-accumulates, 0 to 1.

    If no shape is known, layers count as equal.
    """
    total = sum(group.macs for group in groups)
    if total:
        return {group.name: group.macs / total for group in groups}
    layers = sum(group.kind is GroupKind.LAYER for group in groups)
    return {group.name: 1.0 / layers if group.kind is GroupKind.LAYER else 0.0 for group in groups}


def share_costs(groups: Sequence[Group], why: str) -> FloatCosts:
    """Return costs by multiply-accumulates; a change of precision costs the share of an average layer.

    Args:
        groups: all groups that can be float.
        why: why layers are not timed.
    """
    layers = sum(group.kind is GroupKind.LAYER for group in groups)
    basis = f"multiply-accumulates, since {why}"
    return FloatCosts(cost_shares(groups), 1.0 / max(layers, 1), basis)


def float_costs(candidate: Candidate, timing: LayerTiming, feeds: Sequence[Feeds]) -> FloatCosts:
    """Return the cost in float of each group of `candidate`, in milliseconds if layers can be timed.

    If timing fails, for example because the compiler rejects the network in float, costs are by
    multiply-accumulates, with a warning.

    Args:
        candidate: the network; its INT8 groups are those that could be float.
        timing: how the backend times layers.
        feeds: inputs to run the networks on.
    """
    groups = candidate.groups()
    if timing.open is None or timing.form is None:
        return share_costs(groups, timing.why_not)
    artifact = candidate.realized()
    quantized = timing.form(artifact)
    try:
        int8, floats = _timed((quantized, artifact.model), timing, feeds)
    except TrtbuildError as error:
        why = f"layers cannot be timed ({str(error).rstrip('.')})"
        _log.warning("groups are ranked by multiply-accumulates: %s.", why)
        return share_costs(groups, why)
    names = [group.name for group in groups]
    before, after = int8.by_node(names), floats.by_node(names)
    each = {name: max(after.get(name, 0.0) - before.get(name, 0.0), 0.0) for name in names}
    change = _change(quantized, int8, len(names))
    totals = f"{int8.total:.3g} ms in INT8, {floats.total:.3g} in float, a batch of --batch-size"
    basis = f"milliseconds a run, by {timing.source} ({totals})"
    return FloatCosts(each, change, basis)


def _timed(
    networks: Iterable[ir.Model], timing: LayerTiming, feeds: Sequence[Feeds]
) -> list[LayerTimes]:
    assert timing.open is not None
    with contextlib.ExitStack() as stack:
        sessions = []
        for network in networks:
            sessions.append(timing.open(network, feeds[0]))
            stack.callback(sessions[-1].close)
        return measure_in_turns(sessions, feeds, _RUNS, timing.source, _ROUNDS)


def _change(network: ir.Model, times: LayerTimes, num_groups: int) -> float:
    """Median time of Q and DQ not fused into other kernels; without any, a tenth of the mean group's time."""
    names = [label(node) for node in network.graph if is_qdq(node)]
    alone = [ms for ms in times.by_node(names).values() if ms > 0]
    if alone:
        return max(statistics.median(alone), _LEAST_MS)
    return max(times.total / max(num_groups, 1) / 10, _LEAST_MS)
