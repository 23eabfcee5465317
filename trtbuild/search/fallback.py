"""The last resort, which costs speed: the cheapest layers in float that meet the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.model.stats import node_macs
from trtbuild.progress import silent
from trtbuild.search.goal import goodness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.progress import Progress
    from trtbuild.search.candidate import Draft
    from trtbuild.verification.compare import Comparison

__all__ = ["affordable", "fewest_float_layers", "layer_costs", "rank_layers"]


def layer_costs(model: ir.Model, names: Sequence[str]) -> dict[str, float]:
    """Return each layer's share of the multiply-accumulates of all `names`, 0 to 1.

    Layers of unknown shape count as equal.
    """
    macs = {node.name or "": node_macs(node) for node in model.graph if node.name in set(names)}
    total = sum(macs.values())
    if not total:
        return dict.fromkeys(names, 1.0 / max(len(names), 1))
    return {name: macs[name] / total for name in names}


def rank_layers(
    draft: Draft,
    evaluate: Callable[[ir.Model], Comparison],
    costs: Mapping[str, float],
    progress: Progress = silent,
) -> list[str]:
    """Order the INT8 layers by what each gains alone in float, per cost, best first.

    A layer costs its share of the multiply-accumulates, and as much again as an average one for being
    one more place where the precision changes.
    """
    base = goodness(evaluate(draft.network()))
    names = draft.int8_layers()
    each = 1.0 / max(len(names), 1)
    worth = {}
    for number, name in enumerate(names):
        tried = replace(draft, float_nodes=draft.float_nodes | {name})
        gain = goodness(evaluate(tried.network())) - base
        worth[name] = gain / (costs[name] + each)
        progress("sensitivity", number + 1, len(names))
    return sorted(names, key=lambda name: (-worth[name], name))


def affordable(ranked: Sequence[str], costs: Mapping[str, float], share: float) -> list[str]:
    """Return the head of `ranked` that costs at most `share` together; dearer layers are passed over."""
    kept, spent = [], 0.0
    for name in ranked:
        if spent + costs[name] <= share:
            kept.append(name)
            spent += costs[name]
    return kept


def fewest_float_layers(
    draft: Draft,
    ranked: Sequence[str],
    passes: Callable[[Draft], bool],
    costs: Mapping[str, float],
) -> Draft | None:
    """Find the shortest head of `ranked` that passes in float, then give back what it can spare.

    Returns:
        The draft, or None when not even all of them suffice.
    """

    def with_float(names: Sequence[str]) -> Draft:
        return replace(draft, float_nodes=draft.float_nodes | set(names))

    length = _shortest_passing(len(ranked), lambda count: passes(with_float(ranked[:count])))
    if length is None:
        return None
    kept = list(ranked[:length])
    # the last one is needed: without it, the head was tried and did not pass
    for name in sorted(kept[:-1], key=lambda name: -costs[name]):
        fewer = [other for other in kept if other != name]
        if passes(with_float(fewer)):
            kept = fewer
    return with_float(kept)


def _shortest_passing(count: int, passes: Callable[[int], bool]) -> int | None:
    """Smallest length from 1 that passes: doubled until one does, then halved in between."""
    fails, tried = 0, 1
    while not passes(min(tried, count)):
        if tried >= count:
            return None
        fails, tried = tried, tried * 2
    passed = min(tried, count)
    while passed - fails > 1:
        middle = (fails + passed) // 2
        if passes(middle):
            passed = middle
        else:
            fails = middle
    return passed
