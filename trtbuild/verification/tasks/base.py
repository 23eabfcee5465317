"""Judges of a task: they take both networks' outputs batch by batch and give figures at the end."""

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
        name: the figure in words.
        unit: ``%``, ``points``, ``dB`` or empty.
        estimate: the value, higher is better.
        step: by how much one answer (a sample, a box) changes it; 0 if it is not a share of answers.
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
    """One sample's part of the main figure; lower is worse.

    Attributes:
        name: the sample's name.
        value: its score.
        view: the sample and both networks' answers, to be shown; None without an album.
    """

    name: str
    value: float
    view: View | None = field(default=None, compare=False, repr=False, metadata=NOT_IN_JSON)


@dataclass(frozen=True)
class TaskScore:
    """How well the engine does the float network's task.

    Attributes:
        task: its name: the value of ``--task``, or the name of the user's judge.
        settings: layout and thresholds that the figures depend on, in words.
        num_samples: number of samples measured.
        main: the figure that ``--min-agreement`` and the search use, higher is better; None if the
            samples do not give it (no box in any image).
        others: further figures.
        worst: the samples with the lowest scores, worst first.
        doubt: why `main` says little about the engine, such as one class for all samples; empty if it does
            not.
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
        candidate: outputs of the network under test.
        row: the sample's row in the batch.
        names: class index -> its name.
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
            OptionError: the outputs do not fit this task.
        """
        ...

    def result(self) -> TaskScore | None:
        """Return the figures so far; None if there are none."""
        ...

    @property
    def worst(self) -> tuple[SampleScore, ...]:
        """The samples with the lowest scores so far."""
        ...

    def answers(self, seen: Seen) -> tuple[Answer, Answer] | None:
        """Return both networks' answers for one sample, float's first; None if nothing can be shown."""
        ...


TaskFactory: TypeAlias = Callable[[], Task]
"""Makes a new judge of the task for each network that is compared."""


class Worst:
    """Keeps the samples with the lowest scores; among equal scores, the first ones."""

    def __init__(self, count: int = 10, perfect: float = 100.0) -> None:
        self._count = count
        self._perfect = perfect
        self._kept: list[SampleScore] = []

    def add(self, name: str, value: float) -> None:
        """Take one sample; one with a perfect score is never kept."""
        if value < self._perfect:
            self._kept = sorted([*self._kept, SampleScore(name, value)], key=_value)[: self._count]

    def result(self) -> tuple[SampleScore, ...]:
        """Return the samples, the worst first."""
        return tuple(self._kept)


class Judge:
    """Common part of judges: they keep their worst samples, and show no text unless a subclass does."""

    _worst: Worst

    @property
    def worst(self) -> tuple[SampleScore, ...]:
        """The samples with the lowest scores so far."""
        return self._worst.result()

    def answers(self, seen: Seen) -> tuple[Answer, Answer] | None:
        """Return empty texts, so that only the sample is shown."""
        del seen
        return Answer(""), Answer("")


def named(number: int, names: Mapping[int, str]) -> str:
    """Return the name of a class, or ``class 7`` if it has none."""
    return names.get(number) or f"class {number}"


def _value(sample: SampleScore) -> float:
    return sample.value


def only(outputs: Outputs, ranks: tuple[int, ...], task: str, shape: str) -> str:
    """Return the name of the first float output whose number of axes is one of `ranks`.

    Args:
        outputs: outputs of a network.
        ranks: allowed numbers of axes.
        task: the task that needs it, for the error.
        shape: what such an output looks like, for the error.

    Raises:
        OptionError: there is no such output.
    """
    for name, array in outputs.items():
        if array.ndim in ranks and array.dtype.kind in "fV":
            return name
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise OptionError(
        f"--task {task} needs an output {shape}; the outputs are {shapes}. Choose another --task, or"
        " --task none."
    )
