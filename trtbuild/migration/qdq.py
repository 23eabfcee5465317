"""Turns a calibration cache and a float network into a Q/DQ network; every scale keeps its bits.

Q/DQ are placed as in `trtbuild.quantization`, not on every cached tensor, because a pair inside a fused
kernel breaks the fusion. Weights get scales of their own, which caches do not hold. A layer whose input has
no scale stays float, with the reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.errors import InputError
from trtbuild.migration.report import Entry, Fate, Migration
from trtbuild.model.traversal import values_by_name
from trtbuild.plan import PlacementRequest, Plan, QuantParams
from trtbuild.quantization.insert import insert
from trtbuild.quantization.placement import check_floats, place
from trtbuild.quantization.scale_propagation import propagate
from trtbuild.target import TENSORRT_11
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import onnx_ir as ir

    from calibrators.cache import CalibrationCache
    from trtbuild.plan import Decision, Placement
    from trtbuild.quantization.scale_propagation import Propagated

__all__ = ["check_fits", "tensor_names", "to_qdq"]

_UNNAMED = "(Unnamed Layer*"


def to_qdq(
    model: ir.Model, cache: CalibrationCache, float_patterns: Sequence[str] = ()
) -> Migration:
    """Write the scales of a cache into a network as Q/DQ.

    Args:
        model: the float network that the cache was made for; its nodes must have names.
        cache: the cache.
        float_patterns: nodes that stay float, by name, op type or glob.

    Raises:
        OptionError: a pattern matches no node.
        InputError: no scale of the cache fits the network.
    """
    names = tensor_names(model)
    usable = {name: scale for name, scale in cache.scales.items() if 0 < scale < np.inf}
    own = {name: scale for name, scale in usable.items() if name in names}
    check_fits(cache, names)
    propagated = propagate(model, own)
    known = own | {name: given.value for name, given in propagated.items()}
    request = PlacementRequest(tuple(float_patterns), target=TENSORRT_11)
    check_floats(model, request)
    placement = place(model, request)
    plan = _plan(placement, known)
    if placement.consumers and not plan.params:
        raise InputError(
            f"the cache gives no layer a scale: of its {counted(len(cache.scales), 'tensor')}, "
            f"{len(usable)} have a scale that can be used, and {len(own)} of these are in the network."
        )
    used = frozenset().union(*(placement.roots[name] for name in plan.params))
    entries = tuple(
        _entry(name, scale, own, used, propagated) for name, scale in cache.scales.items()
    )
    decisions = tuple(_decide(decision, placement, plan) for decision in placement.decisions)
    return Migration(insert(model, plan), entries, decisions=decisions)


def check_fits(cache: CalibrationCache, names: Collection[str]) -> None:
    """Check that a cache can belong to the network whose tensors are `names`.

    Raises:
        InputError: the cache has no tensor of that network.
    """
    if cache.scales and not any(name in names for name in cache.scales):
        first, own = next(iter(cache.scales)), next(iter(sorted(names)), "")
        raise InputError(
            f"the cache belongs to another network: none of its {counted(len(cache.scales), 'tensor')}, such "
            f"as '{first}', is one of the network's, such as '{own}'; give the ONNX file that was calibrated."
        )


def tensor_names(model: ir.Model) -> frozenset[str]:
    """Return the names of the inputs and of the outputs of all nodes of the main graph."""
    return frozenset(values_by_name(model.graph))


def _plan(placement: Placement, known: Mapping[str, np.float32]) -> Plan:
    """The part that can be done: tensors whose roots all have a scale, and the weights of their readers."""
    params = {
        name: QuantParams(max(known[root] for root in roots))
        for name, roots in placement.roots.items()
        if all(root in known for root in roots)
    }
    consumers = {name: readers for name, readers in placement.consumers.items() if name in params}
    fed = {reader.node for readers in consumers.values() for reader in readers if reader.index == 0}
    weights = tuple(point for point in placement.weights if point.node in fed)
    return Plan(consumers, weights, params)


def _decide(decision: Decision, placement: Placement, plan: Plan) -> Decision:
    if not decision.int8:
        return decision
    wanted = _inputs_of(decision.node, placement.consumers)
    missing = wanted - _inputs_of(decision.node, plan.consumers)
    if not missing:
        return decision
    roots = sorted(frozenset().union(*(placement.roots[name] for name in missing)))
    return replace(decision, int8=False, reason=f"the cache has no scale for tensor '{roots[0]}'")


def _inputs_of(node: str, consumers: Mapping[str, frozenset[object]]) -> set[str]:
    return {
        name
        for name, readers in consumers.items()
        if any(getattr(reader, "node", "") == node for reader in readers)
    }


def _entry(
    name: str,
    scale: np.float32,
    own: Mapping[str, np.float32],
    used: frozenset[str],
    propagated: Mapping[str, Propagated[np.float32]],
) -> Entry:
    if name not in own:
        return Entry(name, scale, _why_lost(name, scale))
    if name in used:
        return Entry(name, scale, Fate.MATCHED, (name,))
    takers = {
        taker: given
        for taker, given in propagated.items()
        if given.source == name and taker in used
    }
    if takers:
        through = next(iter(takers.values())).through
        return Entry(name, scale, Fate.MAPPED, tuple(sorted(takers)), through)
    return Entry(name, scale, Fate.UNNEEDED)


def _why_lost(name: str, scale: np.float32) -> Fate:
    if scale == 0:
        return Fate.LOST_ZERO
    if not np.isfinite(scale):
        return Fate.LOST_INFINITE
    return Fate.LOST_UNNAMED if name.startswith(_UNNAMED) else Fate.LOST_UNKNOWN
