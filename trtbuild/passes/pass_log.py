"""What happened in one optimisation: which pass did what where, and what it left and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtbuild.passes.editor import Note

__all__ = ["PassLog", "PassRun", "Rollback"]


@dataclass(frozen=True)
class PassRun:
    """One run of one pass over the whole model.

    Attributes:
        name: the pass.
        round: 1 for the first round of the default passes, and so on.
        seconds: wall clock.
        changes: what it did.
        declines: near matches that it left, and why.
    """

    name: str
    round: int
    seconds: float
    changes: tuple[Note, ...]
    declines: tuple[Note, ...]


@dataclass(frozen=True)
class Rollback:
    """A pass whose work was undone, and the evidence.

    Attributes:
        name: the pass.
        step: place of the run that was undone among the runs that changed something, from 0.
        nodes: where that run had changed the graph.
        reason: what was wrong.
    """

    name: str
    step: int
    nodes: tuple[str, ...]
    reason: str


@dataclass
class PassLog:
    """Everything that the passes did in one optimisation.

    Attributes:
        runs: every run of every pass, in order.
        rounds: how often the default passes were run.
        undoing: passes that undo each other, which is why the rounds were stopped; else empty.
        capped: whether the rounds were stopped by their cap.
        rolled_back: passes whose work was undone because it changed a result.
        comparison: one sentence on how the result was compared with the original.
    """

    runs: list[PassRun] = field(default_factory=list)
    rounds: int = 0
    undoing: tuple[str, ...] = ()
    capped: bool = False
    rolled_back: list[Rollback] = field(default_factory=list)
    comparison: str = "not compared"

    @property
    def fired(self) -> dict[str, list[Note]]:
        """Pass -> what it did, over all rounds, in the order of first use."""
        answer: dict[str, list[Note]] = {}
        for run in self.runs:
            if run.changes:
                answer.setdefault(run.name, []).extend(run.changes)
        return answer

    @property
    def declined(self) -> dict[str, list[Note]]:
        """Pass -> near matches that still stand at the end, and why."""
        last = {run.name: run for run in self.runs}
        return {name: list(run.declines) for name, run in last.items() if run.declines}

    @property
    def seconds(self) -> dict[str, float]:
        """Pass -> wall clock over all rounds."""
        answer: dict[str, float] = {}
        for run in self.runs:
            answer[run.name] = answer.get(run.name, 0.0) + run.seconds
        return answer
