"""Sensitivity of each group: accuracy lost if it alone is INT8, and gained if it alone is float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.progress import silent
from trtbuild.search.score import score, worst_sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.plan import Group
    from trtbuild.progress import Progress
    from trtbuild.search.candidate import HasGroups
    from trtbuild.search.evaluate import Evaluator
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Gate

__all__ = ["GroupSensitivity", "rank_groups", "sensitivities"]


@dataclass(frozen=True)
class GroupSensitivity:
    """The sensitivity of one group.

    Attributes:
        group: its name.
        op_type: its operator.
        macs: multiply-accumulates for one image.
        alone_sqnr_db: SQNR of the worst output if this group alone is INT8.
        alone_top1_agreement_percent: images of the same class then; None without class scores.
        gained_db: SQNR gained if this group alone is float.
        alone_top1_drop_points: top-1 lost if this group alone is INT8; None without labels.
        gained_top1_points: top-1 gained if this group alone is float; None without labels.
    """

    group: str
    op_type: str
    macs: int
    alone_sqnr_db: float
    alone_top1_agreement_percent: float | None
    gained_db: float
    alone_top1_drop_points: float | None
    gained_top1_points: float | None


def sensitivities(
    candidate: HasGroups, evaluate: Evaluator, progress: Progress = silent
) -> tuple[GroupSensitivity, ...]:
    """Return every group evaluated alone in INT8 and alone in float, the most harmful first.

    This takes two evaluations per group, and one more.

    Raises:
        OptionError: no layer reads Q/DQ.
    """
    names = frozenset(group.name for group in candidate.groups())
    base = evaluate(candidate.network())
    found = []
    for group, without in _each_in_float(candidate, evaluate, progress):
        alone = evaluate(candidate.with_float(names - {group.name}).network())
        found.append((score(alone), _sensitivity(group, base, alone, without)))
    return tuple(one for _, one in sorted(found, key=lambda scored: scored[0]))


def rank_groups(
    candidate: HasGroups,
    evaluate: Evaluator,
    cost: Callable[[str], float],
    progress: Progress = silent,
    gate: Gate | None = None,
) -> list[str]:
    """Return the groups, sorted by the gain of each alone in float divided by its cost, best first.

    Args:
        candidate: the network.
        evaluate: evaluates on a few images; runs once per group, and once more.
        cost: returns a group's cost in float, above 0.
        progress: told of every group.
        gate: the limits to meet; see `score`.
    """
    base = score(evaluate(candidate.network()), gate)
    worth = {
        group.name: (score(without, gate) - base) / cost(group.name)
        for group, without in _each_in_float(candidate, evaluate, progress)
    }
    return sorted(worth, key=lambda name: (-worth[name], name))


def _each_in_float(
    candidate: HasGroups, evaluate: Evaluator, progress: Progress
) -> Iterator[tuple[Group, Comparison]]:
    """Yield every group with the figures of the network in which it alone is float."""
    groups = candidate.groups()
    for number, group in enumerate(groups):
        yield group, evaluate(candidate.with_float({group.name}).network())
        progress("sensitivity", number + 1, len(groups))


def _sensitivity(
    group: Group, base: Comparison, alone: Comparison, without: Comparison
) -> GroupSensitivity:
    return GroupSensitivity(
        group=group.name,
        op_type=group.op_type,
        macs=group.macs,
        alone_sqnr_db=worst_sqnr_db(alone),
        alone_top1_agreement_percent=alone.top1_agreement_percent,
        gained_db=worst_sqnr_db(without) - worst_sqnr_db(base),
        alone_top1_drop_points=_drop(alone),
        gained_top1_points=None
        if base.accuracy is None
        else (_drop(base) or 0.0) - (_drop(without) or 0.0),
    )


def _drop(comparison: Comparison) -> float | None:
    return None if comparison.accuracy is None else comparison.accuracy.drop_points.value
