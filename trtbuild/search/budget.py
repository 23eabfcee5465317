"""Searches step by step for the cheapest way to meet an accuracy budget, and reports each step's gain.

Steps that cost little or nothing at run time come first, in the order of `_STEPS`; each is kept if it brings
the network closer to float. The search stops as soon as the budget is met. Groups of Q/DQ fall back to float
only if these steps do not suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from trtbuild.artifact import Record
from trtbuild.json_codec import encode
from trtbuild.progress import Progress, silent
from trtbuild.search.bisect import affordable, fewest_in_order
from trtbuild.search.deadline import NEVER, Deadline
from trtbuild.search.float_costs import cost_shares, float_costs
from trtbuild.search.score import figure, meets, score, worst_sqnr_db
from trtbuild.search.sensitivity import rank_groups
from trtbuild.search.steps import (
    correct_biases,
    other_calibrator,
    other_range_of_one_tensor,
    rescale_channels,
    round_anew,
)
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trtbuild.artifact import Artifact
    from trtbuild.search.candidate import Candidate
    from trtbuild.search.evaluate import Evaluator
    from trtbuild.search.steps import Material
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Gate

__all__ = ["Judges", "StepReport", "Tuned", "tune"]


@dataclass(frozen=True)
class StepReport:
    """One step of the search, with the figures after it on the search samples.

    Attributes:
        step: name of the step.
        what: what it chose, or why it chose nothing.
        kept: whether it changed the network.
        sqnr_db: SQNR of the worst output.
        top1_agreement_percent: images of the same class; None without class scores.
        top1_drop_points: top-1 lost; None without labels.
        num_evaluations: number of networks run in this step.
        figure: main figure of the network's task; None without a task.
        float_macs_percent: share of the work that the search keeps in float so far.
    """

    step: str
    what: str
    kept: bool
    sqnr_db: float
    top1_agreement_percent: float | None
    top1_drop_points: float | None
    num_evaluations: int
    figure: float | None = None
    float_macs_percent: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """The result of the search.

    Attributes:
        artifact: the network, quantized as the search chose.
        steps: the steps, in order; the first is the network as calibrated.
        met: whether the budget is met on the search samples, with a margin for other samples.
        float_layers: names of the groups that the search keeps in float.
        float_macs_percent: their share of the work of all groups that could be INT8.
        num_images: number of search samples.
        ranked_by: unit and source of the costs that groups were ranked by for float; empty if none were.
        enough_float_percent: a larger share of the multiply-accumulates in float than is allowed, if it would
            meet the budget on the search samples; None if it would not, or was not tried.
    """

    artifact: Artifact
    steps: tuple[StepReport, ...]
    met: bool
    float_layers: tuple[str, ...]
    float_macs_percent: float
    num_images: int
    ranked_by: str = ""
    enough_float_percent: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON types, without the network."""
        return {
            "steps": encode(self.steps),
            "met": self.met,
            "float_layers": list(self.float_layers),
            "float_macs_percent": self.float_macs_percent,
            "num_images": self.num_images,
            "ranked_by": self.ranked_by,
            "enough_float_percent": self.enough_float_percent,
        }


_Step: TypeAlias = "Callable[[Callable[[], Candidate], Material], Iterator[tuple[str, Candidate]]]"

# If the allowed groups in float are not enough, this many times their share is tried, to be proposed.
_MORE_FLOAT = 1.5

_REASON = "kept in float to meet the accuracy budget"

_STEPS: tuple[tuple[str, _Step], ...] = (
    ("other calibrator", other_calibrator),
    ("bias correction", correct_biases),
    ("channel scaling", rescale_channels),
    ("other calibrator again", other_calibrator),
    ("rounding of weights", round_anew),
    ("bias correction again", correct_biases),
    ("ranges of single tensors", other_range_of_one_tensor),
)


@dataclass(frozen=True)
class Judges:
    """The budget, and the evaluators of candidates.

    Attributes:
        gate: the budget.
        evaluate: runs a candidate on the search samples.
        ranking: runs a candidate on a few of them, for the many runs that rank groups.
    """

    gate: Gate
    evaluate: Evaluator
    ranking: Evaluator


def tune(
    candidate: Candidate,
    judges: Judges,
    material: Material,
    progress: Progress = silent,
    *,
    deadline: Deadline = NEVER,
) -> Tuned:
    """Search until the budget is met or the time is over; the result is never worse than the start.

    Args:
        candidate: the network as it would be quantized without a budget.
        judges: the budget and the evaluators.
        material: data and limits for the steps.
        progress: told of every step.
        deadline: no run begins later.

    Raises:
        OptionError: a limit is on a figure that the images cannot give.
    """
    search = _Search(candidate, judges, deadline)
    for number, (name, step) in enumerate(_STEPS):
        if search.met or deadline.is_over:
            break
        progress("tune", number, len(_STEPS) + 1)
        search.take_best(name, step(search.best, material))
    if not search.met and not deadline.is_over:
        progress("tune", len(_STEPS), len(_STEPS) + 1)
        search.fall_back(material, progress)
    progress("tune", len(_STEPS) + 1, len(_STEPS) + 1)
    return search.result()


class _Search:
    """The best candidate so far."""

    def __init__(self, candidate: Candidate, judges: Judges, deadline: Deadline) -> None:
        self._deadline = deadline
        self._gate, self._evaluate = judges.gate, judges.evaluate
        self._ranking = judges.ranking
        self._steps: list[StepReport] = []
        self._runs = self._evaluate.num_evaluations
        self.candidate = self._start = candidate
        self._costs = cost_shares(candidate.groups())
        self._ranked_by = ""
        self._enough_percent: float | None = None
        self._found = self._evaluate(candidate.network())
        self._in_float = self._found  # of the groups last tried
        self.met = meets(self._found, self._gate)
        self._report("as calibrated", "", kept=True)

    def best(self) -> Candidate:
        """The best candidate so far."""
        return self.candidate

    def take_best(self, name: str, proposals: Iterator[tuple[str, Candidate]]) -> None:
        """Keep every proposal that is better than all before it; stop when one meets the budget.

        A proposal that meets the budget without a better score does so by chance, and is not kept.
        """
        kept = []
        for what, candidate in proposals:
            found = self._evaluate(candidate.network())
            if score(found, self._gate) > score(self._found, self._gate):
                kept.append(what)
                self.candidate, self._found = candidate, found
                self.met = meets(found, self._gate)
            if self.met or self._deadline.is_over:
                break
        self._report(name, kept[-1] if kept else "nothing was better", kept=bool(kept))

    def fall_back(self, material: Material, progress: Progress) -> None:
        """Keep as few groups in float as possible, those first that gain most for their cost per run."""
        costs = float_costs(self.candidate, material.timing, material.feeds[:1])
        self._ranked_by = costs.basis
        self._ranking.ahead(
            (self.candidate.with_float({name}).network() for name in costs.each), progress
        )
        ranked = rank_groups(self.candidate, self._ranking, costs.of, progress, self._gate)
        share, shares = material.max_float_percent, cost_shares(self.candidate.groups())
        allowed = affordable(ranked, shares, share / 100.0)
        names = fewest_in_order(allowed, self._passes_with_float, costs.each) if allowed else None
        if names is None:
            how_near = _how_near(allowed, self._in_float, share)
            more = min(float(math.ceil(_MORE_FLOAT * share)), 100.0)
            self._try_more(allowed, affordable(ranked, shares, more / 100.0), more)
            self._report("float layers", how_near, kept=False)
            return
        self.candidate, self.met = self.candidate.with_float(names, _REASON), True
        self._found = self._evaluate(self.candidate.network())
        self._report("float layers", ", ".join(sorted(names)), kept=True)

    def _passes_with_float(self, names: Sequence[str]) -> bool:
        self._in_float = self._evaluate(self.candidate.with_float(names).network())
        return meets(self._in_float, self._gate)

    def _try_more(self, allowed: Sequence[str], more: Sequence[str], percent: float) -> None:
        """Find whether the groups of a larger share in float would meet the budget."""
        if more != allowed and not self._deadline.is_over:
            found = self._evaluate(self.candidate.with_float(more).network())
            self._enough_percent = percent if meets(found, self._gate) else None

    def _report(self, step: str, what: str, *, kept: bool) -> None:
        found = self._found
        self._steps.append(
            StepReport(
                step=step,
                what=what,
                kept=kept,
                sqnr_db=worst_sqnr_db(found),
                top1_agreement_percent=found.top1_agreement_percent,
                top1_drop_points=found.accuracy.drop_points.value if found.accuracy else None,
                num_evaluations=self._evaluate.num_evaluations - self._runs,
                figure=figure(found),
                float_macs_percent=self._float_percent(),
            )
        )
        self._runs = self._evaluate.num_evaluations

    def _float_percent(self) -> float:
        floats = self.candidate.float_groups - self._start.float_groups
        return 100.0 * sum(self._costs.get(name, 0.0) for name in floats)

    def result(self) -> Tuned:
        """The result, with a record in the artifact's history."""
        floats = tuple(sorted(self.candidate.float_groups - self._start.float_groups))
        artifact = self.candidate.realized()
        tuned = Tuned(
            artifact=artifact,
            steps=tuple(self._steps),
            met=self.met,
            float_layers=floats,
            float_macs_percent=self._float_percent(),
            num_images=self._evaluate.num_images,
            ranked_by=self._ranked_by,
            enough_float_percent=self._enough_percent,
        )
        summary = _summary(tuned)
        return replace(tuned, artifact=artifact.having(Record("tune", summary, tuned.to_json())))


def _how_near(groups: Sequence[str], found: Comparison, max_float_percent: float) -> str:
    """The figures with as many groups in float as allowed, which are not enough."""
    task = figure(found)
    reached = f"{worst_sqnr_db(found):.1f} dB" + ("" if task is None else f", task {task:.1f}")
    return (
        f"not met with the {counted(len(groups), 'most useful group')} in float ({reached}), the most that "
        f"--max-float allows ({max_float_percent:g} % of the multiply-accumulates)"
    )


def _summary(tuned: Tuned) -> str:
    kept: Sequence[str] = [step.step for step in tuned.steps[1:] if step.kept]
    done = ", ".join(kept) or "nothing had to be done"
    met = "met" if tuned.met else "not met"
    return f"{done}; the budget is {met} on {counted(tuned.num_images, 'search sample')}"
