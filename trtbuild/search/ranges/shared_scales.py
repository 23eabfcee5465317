"""Which quantized tensors share a scale, and the thresholds that a scale can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibrators import amax_of
from trtbuild.model.traversal import values_of
from trtbuild.plan import Consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from calibrators import Histogram
    from trtbuild.plan import Placement

__all__ = ["RULES", "SharedScale", "nearest", "rule_amaxes", "shared_scales", "thresholds_of"]

RULES: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "entropy": ("entropy", {}),
    "mse": ("mse", {}),
    "percentile 99.9": ("percentile", {"percentile": 99.9}),
    "percentile 99.99": ("percentile", {"percentile": 99.99}),
    "percentile 99.999": ("percentile", {"percentile": 99.999}),
    "minmax": ("minmax", {}),
    "auto": ("auto", {}),
}
"""Name -> method of `calibrators.METHODS` and its options."""

# Thresholds closer than this factor round almost the same: 7 % is a tenth of a bit.
_SAME = 1.05
# Divisors of the smallest threshold, for narrower ones: rules know only the tensor, but its readers may clip
# large values.
_BELOW = (1.4, 2.0, 2.8, 4.0, 8.0)
_MOST = 12


@dataclass(frozen=True)
class SharedScale:
    """Quantized tensors with one scale.

    Attributes:
        roots: the tensors whose ranges decide the scale; the widest range is taken.
        tensors: the tensors whose Q/DQ change values; the others only pass on values rounded by these.
    """

    roots: frozenset[str]
    tensors: tuple[str, ...]


def shared_scales(model: ir.Model, placement: Placement) -> tuple[SharedScale, ...]:
    """Return the scales of a placement, each with its tensors, in the order of the network."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, roots in placement.roots.items():
        if name in placement.consumers:
            groups.setdefault(roots, []).append(name)
    order = {v.name: i for i, v in enumerate(values_of(model.graph))}
    moved = _moved(model, placement)
    found = [
        SharedScale(roots, tuple(sorted(set(names) - moved or names, key=lambda n: order[n])))
        for roots, names in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: order[one.tensors[0]]))


def _moved(model: ir.Model, placement: Placement) -> set[str]:
    """The quantized tensors whose values are only moved or joined from inputs already rounded."""
    read = {c for readers in placement.consumers.values() for c in readers}
    found = set()
    for node in model.graph:
        count = len(node.inputs) if node.op_type == "Concat" else 1
        if all(Consumer(node.name or "", index) in read for index in range(count)):
            found |= {
                name
                for o in node.outputs
                if (name := o.name or "") not in placement.roots.get(name, ())
            }
    return found


def rule_amaxes(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, float]]:
    """Return rule -> tensor -> its threshold."""
    return {
        rule: {name: amax_of(one, method, **options) for name, one in histograms.items()}
        for rule, (method, options) in RULES.items()
    }


def thresholds_of(
    scale: SharedScale, rules: Mapping[str, Mapping[str, float]]
) -> np.ndarray | None:
    """Return the thresholds that a scale can have: those of the rules, and a grid between and below.

    Args:
        scale: the scale.
        rules: see `rule_amaxes`.

    Returns:
        Float32, ascending; None if all values are zero.
    """
    wide = {rule: max(amaxes[root] for root in scale.roots) for rule, amaxes in rules.items()}
    if not 0 < wide["minmax"] < np.inf:
        return None
    kept: list[float] = []

    def take(amax: float) -> None:
        if amax > 0 and all(max(amax / other, other / amax) >= _SAME for other in kept):
            kept.append(amax)

    for amax in (wide["minmax"], *wide.values()):
        take(amax)
    low, high = min(kept), max(kept)
    grid = np.geomspace(low, high, max(_MOST - len(kept), 0) + 2)[1:-1]
    for amax in (*grid, *(low / factor for factor in _BELOW)):
        take(float(np.float32(amax)))
    return np.array(sorted(kept), np.float32)


def nearest(thresholds: np.ndarray, amax: float) -> int:
    """Return the index of the threshold nearest to `amax`, by their ratio."""
    return int(np.argmin(np.abs(np.log(thresholds / np.float32(amax)))))
