"""What a group costs a run in float: milliseconds where layers can be timed, else multiply-accumulates.

A layer's time says more than its work: a depthwise convolution has few products and takes long, a large
product on few rows waits for its weights. So each layer is timed twice by the profiler of the backend at
hand, in the network with INT8 and in the float one. What a group costs is the difference, and what changing
the precision costs once more: the time of a Q or DQ that stands by itself.
"""

from __future__ import annotations

import logging
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import TrtbuildError
from trtbuild.latency.layer_times import measure_layers
from trtbuild.model.qdq import is_qdq
from trtbuild.model.traversal import label
from trtbuild.search.sensitivity import work_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.latency.layer_times import LayerTimes, ProfiledSession
    from trtbuild.plan import Group
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.candidate import Candidate

__all__ = ["UNTIMED", "FloatCosts", "LayerTiming", "float_costs", "share_costs"]

_log = logging.getLogger(__name__)

_RUNS = 48
# What a profiler's clock does not see: a precision never changes for nothing.
_LEAST_MS = 1e-4


@dataclass(frozen=True)
class LayerTiming:
    """How the backend at hand times layers.

    Attributes:
        source: what measures, in words.
        form: the network with Q/DQ that this backend runs, of a quantized artifact.
        open: opens a network, float or with Q/DQ, for a batch like the one given, to be profiled; None where
            nothing can be timed here.
        why_not: why, then.
    """

    source: str = ""
    form: Callable[[Artifact], ir.Model] | None = None
    open: Callable[[ir.Model, Feeds], ProfiledSession] | None = None
    why_not: str = ""


UNTIMED = LayerTiming(why_not="no backend was named")
"""Nothing is timed."""


@dataclass(frozen=True)
class FloatCosts:
    """What groups cost in float.

    Attributes:
        each: group -> its cost, 0 or more.
        change: the cost of one more place where the precision changes.
        basis: what costs are, and how they are known, in words.
    """

    each: Mapping[str, float]
    change: float
    basis: str

    def of(self, group: str) -> float:
        """Return what `group` costs in float, the change of precision included."""
        return self.each[group] + self.change


def share_costs(groups: Sequence[Group], why: str) -> FloatCosts:
    """Return costs by multiply-accumulates, as `trtbuild.search.sensitivity.rank_groups` has them.

    Args:
        groups: all that can be float.
        why: why they are not timed.
    """
    cost = work_cost(groups)
    each = {group.name: cost(group.name) for group in groups}
    return FloatCosts(each, 0.0, f"multiply-accumulates, since {why}")


def float_costs(candidate: Candidate, timing: LayerTiming, feeds: Sequence[Feeds]) -> FloatCosts:
    """Return what each group of `candidate` costs in float, in milliseconds where layers can be timed.

    A network that cannot be timed after all, such as one that a compiler refuses in float, is judged by its
    multiply-accumulates; a warning says so.

    Args:
        candidate: with the groups in INT8 that could be float.
        timing: how the backend at hand times layers.
        feeds: what the networks run on.
    """
    groups = candidate.groups()
    if timing.open is None or timing.form is None:
        return share_costs(groups, timing.why_not)
    artifact = candidate.realized()
    quantized = timing.form(artifact)
    try:
        int8, floats = (_timed(network, timing, feeds) for network in (quantized, artifact.model))
    except TrtbuildError as error:
        why = f"layers cannot be timed ({str(error).rstrip('.')})"
        _log.warning("groups are ranked by multiply-accumulates: %s.", why)
        return share_costs(groups, why)
    names = [group.name for group in groups]
    before, after = int8.by_node(names), floats.by_node(names)
    each = {name: max(after.get(name, 0.0) - before.get(name, 0.0), 0.0) for name in names}
    change = _change(quantized, int8, len(names))
    totals = f"{int8.total:.3g} ms in INT8, {floats.total:.3g} in float"
    basis = f"milliseconds a run, by {timing.source} ({totals})"
    return FloatCosts(each, change, basis)


def _timed(network: ir.Model, timing: LayerTiming, feeds: Sequence[Feeds]) -> LayerTimes:
    assert timing.open is not None
    session = timing.open(network, feeds[0])
    try:
        return measure_layers(session, feeds, _RUNS, timing.source)
    finally:
        session.close()


def _change(network: ir.Model, times: LayerTimes, num_groups: int) -> float:
    """The time of a Q or DQ that no kernel has taken in; a share of a layer where there is none."""
    names = [label(node) for node in network.graph if is_qdq(node)]
    alone = [ms for ms in times.by_node(names).values() if ms > 0]
    if alone:
        return max(statistics.median(alone), _LEAST_MS)
    return max(times.total / max(num_groups, 1) / 10, _LEAST_MS)
