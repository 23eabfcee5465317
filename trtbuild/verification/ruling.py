"""May this engine be shipped? One of four answers, from limits, their figures' intervals and a floor.

    DO NOT SHIP   a limit fails, or a value is not finite
    NOT JUDGED    no limit was set; or every limit holds, but something below the floor was not judged
    CANNOT TELL   no limit fails by more than one answer, but there are too few images to be sure; or a limit
                  on speed lies inside the interval of the measured figure
    SHIP          every limit holds, and its interval leaves no doubt

Two commands answer other questions with words of their own: `bench`, whether an engine is fast enough (speed
alone makes no engine fit to ship), and `check`, whether TensorRT accepts a network.

The floor is what an engine must reach even if no limit asks for it: see `floors`. It never fails a build by
itself, since no user has set it, but an engine below it is never called SHIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.verification.gate import ON_DISTANCE, TOP1_LOST
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Finding, Verdict
    from trtbuild.verification.scores import Accuracy
    from trtbuild.verification.tasks.base import TaskScore

__all__ = [
    "ACCEPTED",
    "CANNOT_TELL",
    "DO_NOT_SHIP",
    "FAR_SQNR_DB",
    "FAST_ENOUGH",
    "NOT_JUDGED",
    "REJECTED",
    "SAYS_LITTLE",
    "SHIP",
    "STRICT_EXIT_CODE",
    "TOO_SLOW",
    "UNLIKE_LISTS",
    "Ruling",
    "floors",
    "rule",
    "samples_needed",
]

SHIP, DO_NOT_SHIP = "SHIP", "DO NOT SHIP"
NOT_JUDGED, CANNOT_TELL = "NOT JUDGED", "CANNOT TELL"
FAST_ENOUGH, TOO_SLOW = "FAST ENOUGH", "TOO SLOW"
ACCEPTED, REJECTED = "ACCEPTED", "REJECTED"

_FAILED = frozenset({DO_NOT_SHIP, TOO_SLOW, REJECTED})

STRICT_EXIT_CODE = 5
"""Exit code for CANNOT TELL with ``--strict``."""

FAR_SQNR_DB = 20.0
"""An output below this is far from the float one (10 % relative error): the user gets a reason."""

# The lowest acceptable figure of a task, by unit: an engine that answers one case in five differently does
# another job, and below this PSNR a picture looks visibly different.
_LEAST_FIGURES = {"%": 80.0, "dB": 25.0}

# A limit on one of these judges how far outputs may be from float. A limit on the max error does not: it is
# in the output's own unit, and may be so large that every output passes.
_DISTANCES = tuple(ON_DISTANCE.values())

SAYS_LITTLE = "says little"
"""Part of each text of `floors` about a figure that is in doubt rather than low."""

UNLIKE_LISTS = "nothing judges lists of unlike lengths"
"""Part of each text of `floors` about an output of another shape than in float."""

# Their answers have the shape of float's; a detector or a user's judge takes lists of any length.
_OF_ONE_SHAPE = frozenset({"classify", "ctc", "embed", "segment", "restore"})

# With more noise than half of the signal's power, an output is useless, whatever a limit lets pass.
_LEAST_SQNR_DB = 3.0


@dataclass(frozen=True)
class Ruling:
    """One of the answers, and the reason."""

    word: str
    why: str

    def __str__(self) -> str:
        return f"{self.word}: {self.why}"

    def exit_code(self, *, is_strict: bool = False) -> int:
        """Return 1 for DO NOT SHIP and its like, `STRICT_EXIT_CODE` for CANNOT TELL if strict, else 0."""
        if self.word == CANNOT_TELL and is_strict:
            return STRICT_EXIT_CODE
        return int(self.word in _FAILED)


def rule(
    verdicts: Iterable[Verdict],
    below_floor: Sequence[str] = (),
    speed: Sequence[Finding] = (),
    names: Sequence[str] = (),
    compared: Iterable[Comparison] = (),
) -> Ruling:
    """Return whether the engine may be shipped, and why.

    Args:
        verdicts: one for each network that was compared.
        below_floor: reasons not to ship that no limit covers, the weightiest first.
        speed: limits on speed; they alone make no engine fit to ship.
        names: names of the networks of `verdicts`, for the text, if there are several.
        compared: the figures; they decide which limits the text suggests.
    """
    verdicts = tuple(verdicts)
    of_answers = [finding for verdict in verdicts for finding in verdict.findings]
    findings = [*of_answers, *speed]
    failures = [finding for finding in findings if not finding.passed]
    limits = [finding for finding in of_answers if finding.is_limit]
    if failures:
        first = failures[0]
        whose = _whose(first, verdicts, names)
        said = f"{whose}: {first}" if whose else str(first)
        return Ruling(DO_NOT_SHIP, f"{said} ({len(failures)} of {len(findings)} checks failed)")
    if not limits:
        return Ruling(
            NOT_JUDGED, _without_limit(below_floor, tuple(compared), has_speed=bool(speed))
        )
    if below_floor:
        held = "no limit fails" if any(f.misses for f in limits) else "every limit holds"
        return Ruling(NOT_JUDGED, f"{held}, but {below_floor[0]}")
    doubtful = [finding for finding in limits if not finding.settled]
    if doubtful:
        worst = next((one for one in doubtful if one.misses), doubtful[0])
        whose = _whose(worst, verdicts, names)
        return Ruling(CANNOT_TELL, _too_few(doubtful, worst, f" of {whose}" if whose else ""))
    unclear = [finding for finding in speed if not finding.settled]
    if unclear:
        return Ruling(CANNOT_TELL, str(unclear[0]))
    return Ruling(SHIP, f"every limit holds ({len(findings)} checks)")


def _whose(finding: Finding, verdicts: Sequence[Verdict], names: Sequence[str]) -> str:
    """The name of the network that `finding` belongs to; empty without names."""
    pairs = zip(names, verdicts)
    return next((n for n, one in pairs if any(f is finding for f in one.findings)), "")


def _without_limit(
    below_floor: Sequence[str], compared: Sequence[Comparison], *, has_speed: bool
) -> str:
    no_limit = "no limit on accuracy was set" if has_speed else "no limit was set"
    advice = f"set one, such as {_possible_limits(compared)}"
    if below_floor:
        return (
            f"{no_limit}, and {below_floor[0]}; {advice}, to have the engine judged and a better one "
            "searched for"
        )
    return f"all values are finite, and {no_limit}; {advice}"


def _possible_limits(compared: Sequence[Comparison]) -> str:
    """The options that can judge these figures, in words."""
    outputs = [output for one in compared for output in one.outputs]
    is_judged = any(one.task is not None and one.task.main is not None for one in compared)
    if any(output.num_incomparable for output in outputs):
        return "--min-agreement" if is_judged else "--min-agreement with --task or --judge"
    is_float = any(output.sqnr_db is not None for output in outputs)
    flags = ["--min-sqnr" if is_float else "--max-error"]
    if is_judged:
        flags.insert(0, "--min-agreement")
    if any(output.top1_agreement_percent is not None for output in outputs):
        return f"{', '.join(flags)} or, with --labels, --max-top1-drop"
    return " or ".join(flags)


def samples_needed(doubtful: Sequence[Finding]) -> str:
    """Return how many samples would settle `doubtful`, in words; "at least" if one has no interval."""
    needed = [finding.num_needed for finding in doubtful]
    known = [count for count in needed if count is not None]
    if not known:
        return "more samples"
    unit = 10 ** max(len(str(max(known))) - 2, 0)  # only two digits of the estimate mean anything
    most = f"{-(-max(known) // unit) * unit:,} samples"
    return f"about {most}" if len(known) == len(needed) else f"at least {most}"


def _too_few(doubtful: Sequence[Finding], worst: Finding, whose: str) -> str:
    many = f"{samples_needed(doubtful)} would do"
    what = f"{worst.what}{whose}"
    if worst.misses:
        return f"{what} misses its limit by one answer, which may be luck; {many}"
    return f"every limit holds, but not surely: {what} could be beyond its limit; {many}"


def floors(
    comparisons: Mapping[str, Comparison],
    verdicts: Iterable[Verdict],
    *,
    was_trained: bool = False,
    is_evaluated: bool = False,
) -> tuple[str, ...]:
    """Return what lies below the floor, the furthest below first; empty if nothing does.

    The main figure of a task must be at least 80 % (25 dB of PSNR), unless ``--min-agreement`` judges it, and
    be meaningful (`trtbuild.verification.tasks.base.TaskScore.doubt` is empty). Without a measured task, each
    float output must have `FAR_SQNR_DB` in its worst part, unless a limit on outputs or on top-1 judges it.
    Every output must have 3 dB even if something else is judged. Two exceptions: boxes, since suppression
    changes their order; and a network that was trained after it was float and whose task is judged, since it
    computes something else. Every output must have the shape that it has in float, unless boxes or a judge of
    the user's own are judged: lists may differ in length, and then their rows do not correspond. Against
    labels, top-1 must not drop beyond doubt, unless ``--max-top1-drop`` judges that.

    Args:
        comparisons: name of a network -> its figures.
        verdicts: the limits that were checked on them.
        was_trained: whether the network came quantized, by training or by another tool.
        is_evaluated: whether a limit on the user's own evaluation judges the answers, like a limit on a
            task and on top-1.
    """
    limits = [f for verdict in verdicts for f in verdict.findings if f.is_limit]
    judged = {finding.what for finding in limits}
    on_outputs = is_evaluated or any(
        "top-1" in what or what.startswith(_DISTANCES) for what in judged
    )
    found: list[tuple[float, str]] = []
    for name, comparison in comparisons.items():
        task = comparison.task
        if task is not None and task.main is not None and not is_evaluated:
            found += _poor_figure(name, task, judged)
        if not (is_evaluated or _takes_lists(task)):
            found += _of_other_shape(name, comparison)
        if task is None or task.main is None:
            found += _far_outputs(name, comparison, _LEAST_SQNR_DB if on_outputs else FAR_SQNR_DB)
        elif task.task != "detect" and not (was_trained and {task.main.name, TOP1_LOST} & judged):
            found += _far_outputs(name, comparison, _LEAST_SQNR_DB)
        if comparison.accuracy is not None and TOP1_LOST not in judged:
            found += _lost(name, comparison.accuracy)
    return tuple(text for _, text in sorted(found))


def _takes_lists(task: TaskScore | None) -> bool:
    """Whether the figure of a task judges answers that differ in length."""
    return task is not None and task.main is not None and task.task not in _OF_ONE_SHAPE


def _of_other_shape(name: str, comparison: Comparison) -> Iterable[tuple[float, str]]:
    for output in comparison.outputs:
        if output.num_incomparable:
            count, samples = output.num_incomparable, counted(comparison.num_images, "sample")
            text = f"'{output.name}' of {name} has another shape than in float for {count} of {samples}"
            share = count / max(comparison.num_images, 1)
            yield -100.0 * share, f"{text}, and {UNLIKE_LISTS}"


def _poor_figure(name: str, task: TaskScore, judged: set[str]) -> Iterable[tuple[float, str]]:
    assert task.main is not None
    main = task.main
    least = _LEAST_FIGURES.get(main.unit)
    value = main.estimate.value
    if least is not None and value < least and main.name not in judged:
        yield value - least, f"{main.name} of {name} is {value:.1f} {main.unit}"
    if task.doubt:
        yield 0.0, f"{main.name} of {name} {SAYS_LITTLE}: {task.doubt}"


def _lost(name: str, accuracy: Accuracy) -> Iterable[tuple[float, str]]:
    drop = accuracy.drop_points
    if drop.low > 0:
        points = f"{drop.value:.1f} points of top-1 ({drop.low:.1f} to {drop.high:.1f})"
        yield -drop.value, f"{name} loses {points}, which no --max-top1-drop allows"


def _far_outputs(name: str, comparison: Comparison, least_db: float) -> Iterable[tuple[float, str]]:
    for output in comparison.outputs:
        estimate = output.judged_sqnr_db
        if output.num_incomparable:
            continue  # the rows of lists that differ in length do not correspond
        if estimate is not None and estimate.value < least_db:
            value = estimate.value
            error = f"({FAR_SQNR_DB:g} dB are 10 % error)"
            text = f"output {output.judged} of {name} has {value:.1f} dB of SQNR {error}"
            yield value - least_db, text
