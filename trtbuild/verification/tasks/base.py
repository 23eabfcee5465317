"""What a judge of a task is: it takes both networks' outputs batch by batch and gives figures in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from trtbuild.errors import OptionError
from trtbuild.json_codec import NOT_IN_JSON
from trtbuild.verification.intervals import Estimate, percent
from trtbuild.verification.views import Answer, View

if TYPE_CHECKING:
    import numpy as np

    from trtbuild.verification.batch import LabelledBatch

__all__ = [
    "Figure",
    "Judge",
    "Outputs",
    "SampleScore",
    "Seen",
    "Task",
    "TaskFactory",
    "TaskScore",
    "Worst",
    "named",
    "only",
    "share_of",
]

Outputs: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"


@dataclass(frozen=True)
class Figure:
    """One figure with its interval.

    Attributes:
        name: in words.
        unit: ``%``, ``points``, ``dB`` or empty.
        estimate: the value, higher is better.
        step: what one answer (a sample, a box) more or less moves it by; 0 where it is no share of answers.
    """

    name: str
    unit: str
    estimate: Estimate
    step: float = 0.0


def share_of(name: str, successes: int, trials: int) -> Figure:
    """Return a share of answers in percent, with Wilson's interval.

    Raises:
        ValueError: no trials.
    """
    return Figure(name, "%", percent(successes, trials), 100.0 / trials)


@dataclass(frozen=True)
class SampleScore:
    """One sample's share in the main figure; less is worse.

    Attributes:
        name: of the sample.
        value: its share.
        view: what the sample is, and what both networks answer; None where nobody looks.
    """

    name: str
    value: float
    view: View | None = field(default=None, compare=False, repr=False, metadata=NOT_IN_JSON)


@dataclass(frozen=True)
class TaskScore:
    """How well the engine does the float network's task.

    Attributes:
        task: which, as ``--task`` calls it, or the name of the user's judge.
        settings: layout and thresholds that the figures depend on, in words.
        num_samples: how many samples they are of.
        main: the figure that ``--min-agreement`` and the search go by, higher is better; None where the
            samples do not give it (no box in any image).
        others: further figures.
        worst: the samples with the lowest scores, worst first.
        doubt: why `main` says little of the engine, such as one class for all samples; empty: nothing.
    """

    task: str
    settings: str
    num_samples: int
    main: Figure | None
    others: tuple[Figure, ...] = ()
    worst: tuple[SampleScore, ...] = ()
    doubt: str = ""


@dataclass(frozen=True)
class Seen:
    """One sample of a batch that a judge has taken.

    Attributes:
        batch: the batch.
        reference: the float network's outputs for it.
        candidate: those of the network under test.
        row: the sample's place in the batch.
        names: class -> what it is called.
    """

    batch: LabelledBatch
    reference: Outputs
    candidate: Outputs
    row: int
    names: Mapping[int, str]

    @property
    def outputs(self) -> tuple[Outputs, Outputs]:
        """Both networks' outputs, the float network's first."""
        return self.reference, self.candidate


class Task(Protocol):
    """Accumulates the figures of one task, batch by batch."""

    def add(self, batch: LabelledBatch, reference: Outputs, candidate: Outputs) -> None:
        """Take the outputs of the float network and of the network under test for one batch.

        Raises:
            OptionError: the outputs are not of this task.
        """
        ...

    def result(self) -> TaskScore | None:
        """Return the figures so far; None where there is nothing to say."""
        ...

    @property
    def worst(self) -> tuple[SampleScore, ...]:
        """The samples with the lowest scores so far."""
        ...

    def answers(self, seen: Seen) -> tuple[Answer, Answer] | None:
        """Return what the float network says of one sample, and what the other; None for nothing to show."""
        ...


TaskFactory: TypeAlias = Callable[[], Task]
"""Makes a task anew for each network that is compared."""


class Worst:
    """Keeps the samples with the lowest scores, the first of equal ones."""

    def __init__(self, count: int = 10, perfect: float = 100.0) -> None:
        self._count = count
        self._perfect = perfect
        self._kept: list[SampleScore] = []

    def add(self, name: str, value: float) -> None:
        """Take one sample; a perfect one is none of the worst."""
        if value < self._perfect:
            self._kept = sorted([*self._kept, SampleScore(name, value)], key=_value)[: self._count]

    def result(self) -> tuple[SampleScore, ...]:
        """Return them, the worst first."""
        return tuple(self._kept)


class Judge:
    """What judges share: they keep their worst samples, and have no words for them but a subclass's own."""

    _worst: Worst

    @property
    def worst(self) -> tuple[SampleScore, ...]:
        """The samples with the lowest scores so far."""
        return self._worst.result()

    def answers(self, seen: Seen) -> tuple[Answer, Answer] | None:
        """Return no words, so that the sample alone is shown."""
        del seen
        return Answer(""), Answer("")


def named(number: int, names: Mapping[int, str]) -> str:
    """Return what a class is called: its name, or ``class 7``."""
    return names.get(number) or f"class {number}"


def _value(sample: SampleScore) -> float:
    return sample.value


def only(outputs: Outputs, ranks: tuple[int, ...], task: str, shape: str) -> str:
    """Return the name of the first float output of one of `ranks` axes.

    Args:
        outputs: of a network.
        ranks: how many axes it may have.
        task: which task needs it.
        shape: what such an output looks like, for the error.

    Raises:
        OptionError: there is none.
    """
    for name, array in outputs.items():
        if array.ndim in ranks and array.dtype.kind in "fV":
            return name
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise OptionError(
        f"--task {task} needs an output {shape}; the outputs are {shapes}. Choose another --task, or"
        " --task none."
    )
