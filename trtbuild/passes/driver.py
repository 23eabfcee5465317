"""Runs passes over one model until nothing changes, and always terminates.

A round runs every default pass once, in order. After each round the graph is hashed. The same digest
as after the previous round means a fixpoint. A digest of an earlier round means that passes undo each
other; the log names them. A cap ends all other cases. Opt-in passes run once after the fixpoint; then the
default passes run again. The log says what each pass did where, which near matches it left, and why.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.model.digests import Hasher
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model
from trtbuild.model.names import Names
from trtbuild.model.traversal import all_nodes
from trtbuild.passes.editor import Editor
from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbuild.model.digests import GraphDigest
    from trtbuild.passes.editor import Note
    from trtbuild.passes.pass_base import Pass
    from trtbuild.progress import Progress

__all__ = ["PassFailure", "PassLog", "PassRun", "Rollback", "Schedule", "run_passes"]

_STRUCTURE_REPEATS = 3
"""If one structure comes so often while only float constants change, the passes go in circles."""


@dataclass(frozen=True)
class PassRun:
    """One run of one pass over the whole model.

    Attributes:
        name: the pass.
        round: 1 for the first round of the default passes, and so on.
        seconds: wall clock.
        changes: what it changed.
        declines: near matches that it did not rewrite, and why.
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
        step: index of the undone run among the runs that changed something, from 0.
        nodes: where that run had changed the graph.
        reason: what was wrong with the result.
    """

    name: str
    step: int
    nodes: tuple[str, ...]
    reason: str


@dataclass
class PassLog:
    """Everything that the passes did in one optimization.

    Attributes:
        runs: every run of every pass, in order.
        rounds: how often the default passes were run.
        undoing: passes that undo each other, which stopped the rounds; else empty.
        capped: whether the cap stopped the rounds.
        untouched: whether no pass reports a change, and the graph has none.
        rolled_back: passes whose work was undone because it changed a result.
        comparison: one sentence on how the result was compared with the original.
    """

    runs: list[PassRun] = field(default_factory=list)
    rounds: int = 0
    undoing: tuple[str, ...] = ()
    capped: bool = False
    untouched: bool = False
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
        """Pass -> near matches that remain at the end, and why."""
        last = {run.name: run for run in self.runs}
        return {name: list(run.declines) for name, run in last.items() if run.declines}

    @property
    def seconds(self) -> dict[str, float]:
        """Pass -> wall clock over all rounds."""
        answer: dict[str, float] = {}
        for run in self.runs:
            answer[run.name] = answer.get(run.name, 0.0) + run.seconds
        return answer


class PassFailure(Exception):  # noqa: N818 - takes the failure of a pass to the code that undoes it
    """A pass raised; the model that it worked on may be half edited.

    Attributes:
        name: the pass.
        step: how many runs before it changed something.
    """

    def __init__(self, name: str, step: int, cause: Exception) -> None:
        super().__init__(f"pass '{name}' failed: {type(cause).__name__}: {cause}")
        self.name = name
        self.step = step


@dataclass(frozen=True)
class Schedule:
    """Which passes to run, and how far.

    Attributes:
        default: run in rounds until nothing changes.
        opt_in: run once each, after that.
        max_rounds: the cap.
        max_steps: stop after this many runs that changed something; None: no limit.
        banned: pass -> the step from which on it does not run.
    """

    default: Sequence[Pass]
    opt_in: Sequence[Pass] = ()
    max_rounds: int = 100
    max_steps: int | None = None
    banned: Mapping[str, int] = field(default_factory=dict)


def run_passes(
    model: ir.Model,
    schedule: Schedule,
    progress: Progress = silent,
    changed: Callable[[], object] = lambda: None,
) -> PassLog:
    """Run the passes of `schedule` over `model`, whose dims have been inferred, in place.

    The same model and schedule give the same graph, so `Schedule.max_steps` replays a run up to any
    point.

    Args:
        model: a network.
        schedule: the passes to run.
        progress: called for each pass.
        changed: called whenever a pass has changed something.

    Raises:
        PassFailure: a pass raised an exception.
    """
    return _Driver(model, schedule, progress, changed).run()


class _Driver:
    """The state of one `run_passes`."""

    def __init__(
        self,
        model: ir.Model,
        schedule: Schedule,
        progress: Progress,
        changed: Callable[[], object],
    ) -> None:
        self._model = model
        self._schedule = schedule
        self._progress = progress
        self._changed = changed
        self._hasher = Hasher()
        self._names = Names(model)
        self._log = PassLog()
        self._step = 0
        self._present = self._operators()
        self._mapped = [
            value.const_value
            for value in model.graph.initializers.values()
            if isinstance(value.const_value, ir.ExternalTensor)
        ]

    def run(self) -> PassLog:
        """Run the default passes to a fixpoint, then those on request; return what they did."""
        first = self._hasher.digest(self._model)
        self._to_fixpoint(first)
        if self._schedule.opt_in and not self._finished():
            changed = self._round(self._schedule.opt_in)
            if changed:
                infer_model(self._model)
                self._to_fixpoint(self._hasher.digest(self._model))
        self._log.untouched = not self._log.fired and self._hasher.digest(self._model) == first
        return self._log

    def _to_fixpoint(self, digest: GraphDigest) -> None:
        seen = {digest.content: len(self._log.runs)}
        forms = Counter([digest.structure])
        last = digest.content
        for _ in range(self._schedule.max_rounds):
            start = len(self._log.runs)
            changed = self._round(self._schedule.default)
            if not changed or self._finished():
                return
            digest = self._hasher.digest(self._model)
            if digest.content == last:
                fired = self._fired_since(start)
                self._log.undoing = fired if len(fired) > 1 else ()
                return
            forms[digest.structure] += 1
            if digest.content in seen or forms[digest.structure] >= _STRUCTURE_REPEATS:
                self._log.undoing = self._fired_since(seen.get(digest.content, 0))
                return
            seen[digest.content] = len(self._log.runs)
            last = digest.content
            infer_model(self._model)
        self._log.capped = True

    def _round(self, passes: Sequence[Pass]) -> bool:
        """Run each pass once; return whether anything changed."""
        self._log.rounds += 1
        stage = f"graph passes, round {self._log.rounds}"
        changed = False
        for place, item in enumerate(passes):
            if self._finished():
                break
            self._progress(stage, place, len(passes))
            changed |= self._run_one(item)
        self._progress(stage, len(passes), len(passes))
        return changed

    def _run_one(self, item: Pass) -> bool:
        if self._step >= self._schedule.banned.get(item.name, self._step + 1):
            return False
        if not all(not some or some & self._present for some in (item.anchors, item.needs)):
            self._forget_declines(item)
            return False
        edit = Editor(self._model, self._names, mapped=self._mapped)
        started = time.perf_counter()
        try:
            item.run(edit)
        except Exception as error:  # a user's pass may raise anything
            raise PassFailure(item.name, self._step, error) from error
        seconds = time.perf_counter() - started
        changes, declines = tuple(edit.changes), tuple(edit.declines)
        self._log.runs.append(PassRun(item.name, self._log.rounds, seconds, changes, declines))
        if changes:
            self._step += 1
            self._present = self._operators()
            self._changed()
        return bool(changes)

    def _forget_declines(self, item: Pass) -> None:
        """Record that near matches which a pass left in an earlier round are gone."""
        if item.name in self._log.declined:
            self._log.runs.append(PassRun(item.name, self._log.rounds, 0.0, (), ()))

    def _operators(self) -> set[str]:
        """Return all operators in the graph: passes whose operators are missing need not run."""
        return {node.op_type for node in all_nodes(self._model.graph)}

    def _finished(self) -> bool:
        limit = self._schedule.max_steps
        return limit is not None and self._step >= limit

    def _fired_since(self, start: int) -> tuple[str, ...]:
        names = [run.name for run in self._log.runs[start:] if run.changes]
        return tuple(dict.fromkeys(names))
