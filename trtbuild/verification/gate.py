"""Limits on a comparison: whether each is met. Runs no network."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from trtbuild.errors import OptionError
from trtbuild.json_codec import encode
from trtbuild.options.fields import option, options_of
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from trtbuild.options.fields import OptionField
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.metrics import OutputComparison

__all__ = [
    "NEEDS_LABELS",
    "ON_DISTANCE",
    "TOP1_LOST",
    "Finding",
    "Gate",
    "Verdict",
    "check_limits",
    "check_measured",
    "judge",
]

NEEDS_LABELS = "a limit on top-1 needs labels; give them with --labels."

TOP1_LOST = "top-1 lost"
"""`Finding.what` of the limit on top-1 against labels."""

ON_DISTANCE = {
    "min_sqnr": "SQNR of",
    "min_cosine": "cosine of",
    "max_relative_l2": "relative L2 of",
}
"""Limit on how far an output may be from float -> the beginning of its `Finding.what`."""

# Limits on figures that compare an output with float's value by value.
_BY_VALUE = frozenset({*ON_DISTANCE, "max_error", "min_top1_agreement", "min_topk_agreement"})


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Limits on accuracy; None sets no limit. Values that are not finite fail under every gate."""

    min_sqnr: float | None = option(
        None,
        "Minimum SQNR of every float output, by its worst part.",
        unit="dB",
        essential=True,
    )
    min_cosine: float | None = option(
        None, "Minimum cosine of every float output, by its worst part.", low=-1, high=1
    )
    max_relative_l2: float | None = option(
        None, "Maximum relative L2 error of every float output, by its worst part.", low=0
    )
    max_error: float | None = option(
        None, "Maximum absolute difference of any element, in the output's unit.", low=0
    )
    min_top1_agreement: float | None = option(
        None, "Minimum share of samples with the same class.", unit="percent", low=0, high=100
    )
    min_topk_agreement: float | None = option(
        None,
        "Minimum share of the k best classes that agree, on average over samples.",
        unit="percent", low=0, high=100,
    )  # fmt: skip
    max_top1_drop: float | None = option(
        None,
        "Maximum loss of top-1 accuracy against labels.",
        unit="percentage points",
        low=-100,
        high=100,
        essential=True,
    )
    min_agreement: float | None = option(
        None, "Minimum figure of the task (--task, --judge): percent, or dB of --task restore.",
        essential=True,
    )  # fmt: skip
    max_metric_drop: float | None = option(
        None, "Maximum loss of every metric of your own, in its unit."
    )

    def __post_init__(self) -> None:
        for field in options_of(type(self)):
            value = getattr(self, field.name)
            if value is not None:
                _check_possible(field, value)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def check_limits(names: Iterable[str], kind: type = Gate) -> None:
    """Check that all `names` are limits, that is, fields of `kind`.

    Raises:
        OptionError: one is not.
    """
    known = {field.name for field in options_of(kind)}
    if unknown := sorted(set(names) - known):
        raise OptionError(
            f"there is no limit '{unknown[0]}'; there are {', '.join(sorted(known))}."
        )


def _check_possible(field: OptionField, limit: float) -> None:
    """Refuse a limit that every figure fails, or that every figure passes."""
    if not isinstance(limit, Real) or not math.isfinite(limit):
        raise OptionError(
            f"the limit {field.name} is {limit!r}; give a number that a figure can reach."
        )
    low, high = field.option.low, field.option.high
    if (low is not None and limit < low) or (high is not None and limit > high):
        span = f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
        raise OptionError(f"the limit {field.name} is {limit:g}; its figure is {span}.")


@dataclass(frozen=True)
class Finding:
    """One figure compared with its limit.

    Attributes:
        what: the figure and what it belongs to; for example ``SQNR of 'logits'``.
        unit: ``dB``, ``%``, ``points`` or empty.
        limit: the limit; `at_most` says which side passes.
        at_most: whether the limit is an upper one (else a lower one).
        found: the figure.
        passed: whether the limit is met, or missed by one answer, which may be luck (then not settled).
        settled: whether the figure's interval lies on one side of the limit; if not, other images
            could give another verdict.
        is_limit: whether the user set it; False for what always holds, such as that values are finite.
        num_needed: how many images would settle it, as its interval tells; None if settled or unknown.
    """

    what: str
    unit: str
    limit: float
    at_most: bool
    found: float
    passed: bool
    settled: bool = True
    is_limit: bool = True
    num_needed: int | None = None

    @property
    def misses(self) -> bool:
        """Whether the figure lies beyond the limit, if only by one answer."""
        return self.found > self.limit if self.at_most else self.found < self.limit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        side = "at most" if self.at_most else "at least"
        verdict = "" if self.passed else ", failed"
        if self.passed and self.misses:
            verdict = ", missed by one answer"
        doubt = "" if self.settled else " (too few samples to be sure)"
        found, limit = self._numbers()
        return f"{self.what}: {found}{unit}, {side} {limit}{unit}{verdict}{doubt}"

    def _numbers(self) -> tuple[str, str]:
        """The figure and the limit; where the limit is missed, with enough digits to tell them apart."""
        found, limit = f"{self.found:.4g}", f"{self.limit:g}"
        for digits in range(5, 17):
            if not self.misses or float(found) != float(limit):
                break
            found, limit = f"{self.found:.{digits}g}", f"{self.limit:.{digits}g}"
        return found, limit


@dataclass(frozen=True)
class Verdict:
    """Whether every limit passes (`Finding.passed`), and the finding for each."""

    passed: bool
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that did not pass."""
        return tuple(finding for finding in self.findings if not finding.passed)

    @property
    def holds(self) -> bool:
        """Whether every figure meets its limit, without excusing a miss by one answer as luck."""
        return all(finding.passed and not finding.misses for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return JSON types."""
        result: dict[str, Any] = encode(self)
        return result


def judge(comparison: Comparison, gate: Gate) -> Verdict:
    """Compare every figure with its limit.

    An output whose size depends on its values, such as a list of boxes, may have another shape than in float.
    That fails only limits that compare values, which these samples cannot meet; without such a limit,
    `trtbuild.verification.ruling.floors` says whether anything judges them.

    Raises:
        OptionError: a limit is set on a figure that the comparison does not have. Otherwise a gate could
            pass because nothing was judged.
    """
    by_value = not _BY_VALUE.isdisjoint(gate.limits)
    findings = [
        finding
        for output in comparison.outputs
        for finding in _soundness(output)
        if by_value or not output.num_incomparable or finding.what != _other_shape(output)
    ]
    judged = list(_judge_limits(comparison, gate))
    _check_all_judged(comparison, gate, {name for name, _ in judged})
    findings += [finding for _, finding in judged]
    return Verdict(all(finding.passed for finding in findings), tuple(findings))


def check_measured(comparison: Comparison, gate: Gate) -> None:
    """Check that a comparison of some samples has every figure that a limit is set on.

    A task figure that these samples do not give (of boxes, for example) may come with other samples.

    Raises:
        OptionError: as `judge`.
    """
    found = {name for name, _ in _judge_limits(comparison, gate)}
    if comparison.task is not None:
        found.add("min_agreement")
    _check_all_judged(comparison, gate, found)


def _check_all_judged(comparison: Comparison, gate: Gate, found: Collection[str]) -> None:
    for name in gate.limits:
        if name not in found:
            raise OptionError(f"the limit {name} cannot be judged: {_lacking(name, comparison)}.")
    main = None if comparison.task is None else comparison.task.main
    limit = gate.min_agreement
    if main is not None and limit is not None and main.unit == "%" and not 0 <= limit <= 100:
        raise OptionError(f"the limit min_agreement is {limit:g}; '{main.name}' is 0 to 100 %.")


_NO_FLOAT = "no output holds floating-point values"
_NO_SCORES = "no output looks like class scores"
_LACKING = {
    "min_sqnr": _NO_FLOAT,
    "min_cosine": _NO_FLOAT,
    "max_relative_l2": _NO_FLOAT,
    "max_error": "there is no output",
    "min_top1_agreement": _NO_SCORES,
    "min_topk_agreement": f"{_NO_SCORES} of more than k classes",
    "max_top1_drop": "the data has no labels; give them with --labels",
    "min_agreement": "no task is measured; say which with --task, or give --judge",
    "max_metric_drop": "no metric was given; give one with --metric",
}


def _lacking(name: str, comparison: Comparison) -> str:
    task = comparison.task
    if name == "min_agreement" and task is not None:
        return (
            f"{counted(task.num_samples, 'sample')} without a figure of --task {task.task} "
            f"({task.settings}); give others, or another --min-score"
        )
    return _LACKING[name]


def _soundness(output: OutputComparison) -> Iterator[Finding]:
    counts = {
        f"values of '{output.name}' that are not finite": output.num_non_finite,
        f"values of the float '{output.name}' that are not finite": output.num_reference_non_finite,
        _other_shape(output): output.num_incomparable,
    }
    for what, count in counts.items():
        passed = count == 0
        yield Finding(
            what, "", 0.0, at_most=True, found=float(count), passed=passed, is_limit=False
        )


def _other_shape(output: OutputComparison) -> str:
    return f"samples whose '{output.name}' has another shape than in float"


@dataclass(frozen=True)
class _Figure:
    """A figure that there may be a limit on.

    Attributes:
        name: name of the limit in `Gate`.
        what: as in `Finding`.
        unit: as in `Finding`.
        estimate: the figure; None where it was not measured.
        num_images: how many images it was measured on.
        step: by how much one answer changes it; 0 for figures that are not counts of answers.
    """

    name: str
    what: str
    unit: str
    estimate: Estimate | None
    num_images: int
    step: float = 0.0


def _judge_limits(comparison: Comparison, gate: Gate) -> Iterator[tuple[str, Finding]]:
    for output in comparison.outputs:
        figures = _figures_of_output(output, comparison.num_images)
        yield from (found for figure in figures for found in _held(figure, gate))
        if gate.max_error is not None:
            what, found = f"max error of '{output.name}'", output.max_error
            holds = found <= gate.max_error
            yield "max_error", Finding(what, "", gate.max_error, True, found, holds)
    yield from (found for figure in _figures(comparison) for found in _held(figure, gate))


def _figures_of_output(output: OutputComparison, num_images: int) -> Iterator[_Figure]:
    cosine, relative_l2 = output.judged_cosine, output.judged_relative_l2
    for name, where, unit, estimate in (
        ("min_sqnr", output.judged, "dB", output.judged_sqnr_db),
        ("min_cosine", cosine[0], "", cosine[1]),
        ("max_relative_l2", relative_l2[0], "", relative_l2[1]),
    ):
        yield _Figure(name, f"{ON_DISTANCE[name]} {where}", unit, estimate, num_images)
    what = f"top-1 agreement of '{output.name}'"
    one, agreement = 100.0 / max(num_images, 1), output.top1_agreement_percent
    yield _Figure("min_top1_agreement", what, "%", agreement, num_images, one)
    what = f"top-{output.top_k} agreement of '{output.name}'"
    yield _Figure("min_topk_agreement", what, "%", output.topk_agreement_percent, num_images)


def _figures(comparison: Comparison) -> Iterator[_Figure]:
    """The figures that belong to no single output."""
    accuracy, task = comparison.accuracy, comparison.task
    if accuracy is not None:
        count = accuracy.num_images
        one = 100.0 / max(count, 1)
        yield _Figure("max_top1_drop", TOP1_LOST, "points", accuracy.drop_points, count, one)
    if task is not None and task.main is not None:
        main = task.main
        estimate, count = main.estimate, task.num_samples
        yield _Figure("min_agreement", main.name, main.unit, estimate, count, main.step)
    for metric in comparison.metrics:
        what = f"{metric.name} lost"
        yield _Figure("max_metric_drop", what, "", metric.drop, metric.num_images)


def _held(figure: _Figure, gate: Gate) -> Iterator[tuple[str, Finding]]:
    """Compare a figure with its limit, if both exist."""
    limit: float | None = getattr(gate, figure.name)
    estimate = figure.estimate
    if limit is None or estimate is None:
        return
    at_most = figure.name.startswith("max_")
    beyond = estimate.value - limit if at_most else limit - estimate.value
    has_none = figure.num_images > 1 and math.isinf(estimate.low) and math.isinf(estimate.high)
    settled = has_none or not estimate.low < limit < estimate.high
    # one wrong answer may be luck; two, where none is allowed, rarely are
    passed = beyond <= 0 or (not settled and beyond < figure.step)
    # imported here: help does not need NumPy
    from trtbuild.verification.intervals import samples_needed

    needed = None if settled else samples_needed(estimate, limit, figure.num_images)
    found = Finding(
        figure.what, figure.unit, limit, at_most, estimate.value, passed, settled, num_needed=needed
    )
    yield figure.name, found
