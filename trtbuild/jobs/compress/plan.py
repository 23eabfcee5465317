"""The steps of a compression, fixed before the first one; earlier results decide which of them are due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.enums import StrEnum
from trtbuild.verification.ruling import DO_NOT_SHIP, NOT_JUDGED, SHIP, Ruling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbuild.jobs.compress.record import Compression, CompressionPoint

__all__ = [
    "INT8_STAGES",
    "Kind",
    "Step",
    "base_round",
    "builds_in",
    "chosen_round",
    "float_round",
    "is_due",
    "plan_steps",
    "rounds_in",
    "ruling_of",
    "verdict_of",
]


class Kind(StrEnum):
    """The kind of a step."""

    LOADED = "loaded"
    PRUNE = "prune"
    SPARSE = "2:4"
    TRAIN = "train"
    BUILD = "build"


@dataclass(frozen=True)
class Step:
    """One step, which is done completely or not at all.

    Attributes:
        kind: what it does.
        round: 0 is the module as loaded; every other round removes something and trains the rest.
        epoch: epoch of training, from 0; None if the training is one step.
        epochs: number of epochs.
    """

    kind: Kind
    round: int
    epoch: int | None = None
    epochs: int = 1

    @property
    def name(self) -> str:
        """Its name, also in the record of a run."""
        name = f"{self.kind} {self.round}"
        return name if self.epoch is None else f"{name}, epoch {self.epoch + 1} of {self.epochs}"

    @property
    def folder(self) -> str:
        """Folder of its module, in the run's folder."""
        part = "" if self.epoch is None else f"-{self.epoch + 1}"
        return f"{self.round}/{self.kind.replace(':', '-')}{part}"

    @property
    def ends_training(self) -> bool:
        """Whether the round's training ends with it."""
        return self.kind is Kind.TRAIN and (self.epoch is None or self.epoch + 1 == self.epochs)


def plan_steps(
    prunings: int, *, sparse: bool, epochs: int | None, builds: bool
) -> tuple[Step, ...]:
    """Return all steps in order; networks are built from the smallest on.

    Args:
        prunings: number of rounds that remove channels; 0 and nothing sparse trains the module as loaded.
        sparse: whether a round of 2:4 zeros follows.
        epochs: epochs of each training; None if the user's function does the whole training.
        builds: whether a network is built at the end.
    """
    thinning = [(Kind.PRUNE, number) for number in range(1, prunings + 1)]
    thinning += [(Kind.SPARSE, prunings + 1)] if sparse else []
    steps = [Step(Kind.LOADED, 0)]
    for kind, number in thinning:
        steps += [Step(kind, number), *_training(number, epochs)]
    if not thinning:
        steps += _training(0, epochs)
    if builds:
        steps += [Step(Kind.BUILD, number) for number in range(len(thinning), -1, -1)]
    return tuple(steps)


def _training(number: int, epochs: int | None) -> list[Step]:
    if epochs is None:
        return [Step(Kind.TRAIN, number)]
    return [Step(Kind.TRAIN, number, epoch, epochs) for epoch in range(epochs)]


def rounds_in(steps: tuple[Step, ...]) -> int:
    """Return the number of the last round."""
    return max(step.round for step in steps)


def builds_in(steps: tuple[Step, ...]) -> bool:
    """Return whether a network is built at the end."""
    return any(step.kind is Kind.BUILD for step in steps)


INT8_STAGES = ("weights", "form", "engine")
"""The stages of a module's network in INT8."""


def float_round(record: Compression, number: int) -> CompressionPoint | None:
    """Return the module at the end of a round; None if the round did not end, or lost more than allowed."""
    points = [p for p in record.points if p.round == number and p.stage not in INT8_STAGES]
    ended = [point for point in points if point.stage in ("loaded", "tuned")]
    if not ended or not all(point.passed for point in points):
        return None
    return ended[-1]


def _has_missed(record: Compression, number: int) -> bool:
    points = (p for p in record.points if p.round == number and p.stage not in INT8_STAGES)
    return not all(point.passed for point in points)


def base_round(record: Compression, number: int) -> int:
    """Return the last round before `number` that lost no more than allowed: the base of the next round."""
    return next(
        earlier for earlier in range(number - 1, -1, -1) if float_round(record, earlier) is not None
    )


def chosen_round(record: Compression, steps: tuple[Step, ...]) -> int | None:
    """Return the last round that lost no more than allowed, including its engine; None without one."""
    last = max((point.round for point in record.points), default=0)
    for number in range(last, -1, -1):
        if float_round(record, number) is None:
            continue
        if not builds_in(steps) or _is_built(record, number):
            return number
    return None


def _is_built(record: Compression, number: int) -> bool:
    built = [p for p in record.points if p.round == number and p.stage in INT8_STAGES]
    exported = any(p.round == number and p.stage == "folded" for p in record.points)
    ends = any(done.step == Step(Kind.BUILD, number).name for done in record.done)
    return ends and exported and all(point.passed for point in built)


def is_due(step: Step, record: Compression) -> bool:
    """Return whether a step is still useful: after a loss beyond the limits, nothing smaller is tried."""
    if step.kind is Kind.BUILD:
        if float_round(record, step.round) is None:
            return False
        later = range(step.round + 1, max(point.round for point in record.points) + 1)
        return not any(_is_built(record, number) for number in later)
    if step.kind is Kind.TRAIN:
        return not _has_missed(record, step.round) and _was_thinned(record, step.round)
    if step.kind is Kind.PRUNE:
        return float_round(record, step.round - 1) is not None
    return True


def _was_thinned(record: Compression, number: int) -> bool:
    thinned = ("pruned", "sparse") if number else ("loaded",)
    return any(p.round == number and p.stage in thinned for p in record.points)


def verdict_of(record: Compression, steps: tuple[Step, ...]) -> tuple[bool | None, str]:
    """Return whether the last round was reached within the limits (None: there are none), and why."""
    chosen = chosen_round(record, steps)
    limited = [point for point in record.points if point.limit is not None]
    missed = [point for point in limited if not point.passed]
    last_round = rounds_in(steps)
    every = all(float_round(record, number) is not None for number in range(last_round + 1))
    if chosen == last_round and every:
        if not limited:
            return (
                None,
                "everything was done, and no limit was set; --evaluate with --max-drop sets one",
            )
        last = limited[-1]
        return True, f"everything was reached: the {last.what} {_loses(last)}"
    causes = "; ".join(
        (*(f"the {point.what} {_loses(point)}" for point in missed), *_unpruned(record))
    )
    kept = (
        "nothing that was tried meets the limits"
        if chosen is None
        else f"kept is {_rest(record, chosen)}"
    )
    return False, f"the budget cannot be met: {causes}; {kept}"


def ruling_of(record: Compression, steps: tuple[Step, ...]) -> Ruling:
    """Return whether the module that is kept may be shipped, and why.

    It may if the last round was reached within the limits, one of the limits is on what is shipped, and
    nothing is below the floor of `trtbuild.verification.ruling.floors`.
    """
    met, why = verdict_of(record, steps)
    if met is None:
        return Ruling(NOT_JUDGED, why)
    if not met:
        return Ruling(DO_NOT_SHIP, why)
    number = rounds_in(steps)
    shipped = [p for p in record.points if p.round == number and p.stage in ("tuned", "engine")]
    doubts = [text for done in record.done if done.step == Step(Kind.BUILD, number).name
              for text in done.below_floor]  # fmt: skip
    if shipped[-1].limit is None:
        doubts.append(f"no limit is on the {shipped[-1].what}; set one, such as --max-drop")
    return Ruling(NOT_JUDGED, f"{why}, but {doubts[0]}") if doubts else Ruling(SHIP, why)


def _unpruned(record: Compression) -> Iterator[str]:
    """For each pruning round that removed nothing, the reason."""
    for done in record.done:
        if done.step.startswith(f"{Kind.PRUNE} ") and not done.points:
            reason = done.notes[0].removeprefix("the budget cannot be met: ").rstrip(".")
            yield f"round {done.step.removeprefix(f'{Kind.PRUNE} ')} is out of reach, {reason}"


def _loses(point: CompressionPoint) -> str:
    lost = max(point.lost or 0.0, 0.0)
    return f"loses {lost:.4g}, but {point.limit:g} may be lost"


def _rest(record: Compression, number: int) -> str:
    kept = float_round(record, number)
    assert kept is not None
    loaded = record.points[0]
    if kept.macs is None or not loaded.macs:
        share = f"{kept.parameters / max(loaded.parameters, 1):.0%} of the parameters"
    else:
        share = f"{kept.macs / loaded.macs:.0%} of the multiply-accumulates"
    what = "the module as loaded" if number == 0 else f"round {number}"
    return f"{what}, with {share}"
