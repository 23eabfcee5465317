"""Selects the few groups whose rounding costs the outputs most, relative to their cost in float.

A group's effect on the outputs is estimated to first order from backward runs (`trtbuild.search.effects`).
Its cost in float is computed from the network alone, so that the same files give the same engine: the mean of
its shares of the multiply-accumulates, of the values read and written, and of the number of groups. A
depthwise convolution has few products but moves many values; a layer of one pixel has little of either, but
is a kernel like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.model.constants import is_constant
from trtbuild.model.shapes import dims
from trtbuild.model.traversal import nodes_by_name
from trtbuild.search.bisect import affordable
from trtbuild.search.effects import output_effects
from trtbuild.search.float_costs import cost_shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.plan import Group
    from trtbuild.runtime.session import Feeds
    from trtbuild.search.candidate import Candidate

__all__ = ["FloatShare", "costly_groups", "work_shares"]


@dataclass(frozen=True)
class FloatShare:
    """Groups that may be float.

    Attributes:
        groups: their names, the most useful for its cost first.
        percent: their share of the work, in percent.
        expected_percent: share of the outputs' error caused by rounding them, to first order, in percent.
    """

    groups: tuple[str, ...]
    percent: float
    expected_percent: float

    def __str__(self) -> str:
        layers = "layer" if len(self.groups) == 1 else "layers"
        return (
            f"{len(self.groups)} {layers}, {self.percent:.1f} % of the work, whose rounding is "
            f"{self.expected_percent:.0f} % of the outputs' error"
        )


def costly_groups(candidate: Candidate, feeds: Sequence[Feeds], most_percent: float) -> FloatShare:
    """Return the groups that gain most in float, within a share of the work; none without gradients.

    Args:
        candidate: the network.
        feeds: images that choose.
        most_percent: largest share of the work of all INT8 groups, in percent.
    """
    groups = candidate.groups()
    effects = output_effects(candidate.artifact.model, candidate.network(), feeds).layers
    errors = {
        group.name: 10.0 ** (-effects[group.name].alone_sqnr_db / 10.0)
        for group in groups
        if group.name in effects
    }
    costs, total = work_shares(candidate.artifact.model, groups), sum(errors.values())
    ranked = sorted((n for n in errors if errors[n] > 0), key=lambda n: -errors[n] / costs[n])
    names = affordable(ranked, costs, most_percent / 100.0)
    return FloatShare(
        tuple(names),
        100.0 * sum(costs[name] for name in names),
        100.0 * sum(errors[name] for name in names) / total if total else 0.0,
    )


def work_shares(model: ir.Model, groups: Sequence[Group]) -> dict[str, float]:
    """Return each group's share of the work of all groups, as this module defines it, above 0 to 1."""
    nodes = nodes_by_name(model.graph)
    values = {group.name: _num_values(nodes[group.name]) for group in groups}
    products, total = cost_shares(groups), max(sum(values.values()), 1)
    each = 1.0 / max(len(groups), 1)
    return {name: (products[name] + values[name] / total + each) / 3.0 for name in values}


def _num_values(node: ir.Node) -> int:
    """How many values a node reads and writes, without weights; symbolic dims count as one."""
    moved = (value for value in (*node.inputs, *node.outputs) if not is_constant(value))
    known = [dims(value) or () for value in moved if value is not None]
    return sum(math.prod(d if isinstance(d, int) else 1 for d in one) for one in known)
