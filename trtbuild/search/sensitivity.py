"""What each group costs: accuracy lost when it alone is INT8, and gained when it alone is float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.progress import silent
from trtbuild.search.groups import Group, find_groups, with_float
from trtbuild.search.score import fidelity

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.progress import Progress
    from trtbuild.search.evaluate import Evaluator
    from trtbuild.verification.compare import Comparison

__all__ = ["GroupSensitivity", "sensitivities"]


@dataclass(frozen=True)
class GroupSensitivity:
    """One group.

    Attributes:
        group: its name.
        op_type: its operator.
        macs: multiply-accumulates for one image.
        alone_sqnr_db: SQNR of the worst output when this group alone is INT8.
        alone_top1_agreement_percent: images of the same class then; None without class scores.
        gained_db: SQNR gained when this group alone is float.
        alone_top1_drop_points: top-1 lost when this group alone is INT8; None without labels.
        gained_top1_points: top-1 gained when this group alone is float; None without labels.
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
    quantized: ir.Model, reference: ir.Model, evaluate: Evaluator, progress: Progress = silent
) -> tuple[GroupSensitivity, ...]:
    """Evaluate every group alone in INT8 and alone in float, most costly first.

    Takes two evaluations a group, and one more.

    Raises:
        OptionError: nothing in `quantized` reads Q/DQ.
    """
    groups = find_groups(quantized)
    names = frozenset(group.name for group in groups)
    base = evaluate(quantized)
    found = []
    for number, group in enumerate(groups):
        alone = evaluate(with_float(quantized, reference, names - {group.name}))
        without = evaluate(with_float(quantized, reference, {group.name}))
        found.append(_sensitivity(group, base, alone, without))
        progress("sensitivity", number + 1, len(groups))
    return tuple(sorted(found, key=lambda one: one.alone_sqnr_db))


def _sensitivity(
    group: Group, base: Comparison, alone: Comparison, without: Comparison
) -> GroupSensitivity:
    agreement = [output.top1_agreement_percent for output in alone.outputs]
    shares = [estimate.value for estimate in agreement if estimate is not None]
    return GroupSensitivity(
        group=group.name,
        op_type=group.op_type,
        macs=group.macs,
        alone_sqnr_db=fidelity(alone),
        alone_top1_agreement_percent=min(shares, default=None),
        gained_db=fidelity(without) - fidelity(base),
        alone_top1_drop_points=_drop(alone),
        gained_top1_points=None
        if base.accuracy is None
        else (_drop(base) or 0.0) - (_drop(without) or 0.0),
    )


def _drop(comparison: Comparison) -> float | None:
    return None if comparison.accuracy is None else comparison.accuracy.drop_points.value
