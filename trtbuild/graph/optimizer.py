"""Optimises a network: passes to a fixpoint, compared with the original, undone where wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.graph.driver import PassFailure, Schedule, run_passes
from trtbuild.graph.inference import infer_model
from trtbuild.graph.interface import Interface
from trtbuild.graph.pass_log import Rollback
from trtbuild.graph.selection import all_passes, select
from trtbuild.graph.stats import GraphStats, measure
from trtbuild.graph.verify import Reference, find_reference
from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.graph.pass_base import Pass
    from trtbuild.graph.pass_log import PassLog
    from trtbuild.progress import Progress

__all__ = ["OptimizeOptions", "OptimizeResult", "optimize"]


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """What to do to a graph.

    Attributes:
        enable: opt-in passes to run as well, by name.
        disable: passes not to run.
        only: run just these passes; empty: all default passes.
        passes: passes of your own; they run after the shipped ones of a round.
        check: compare the result with the original on random inputs, and undo what differs.
        seed: of those inputs.
        sizes: sizes of symbolic dims to compare at, one mapping of name to size per comparison;
            empty: a few small sizes that the network takes.
        max_rounds: the most rounds of the default passes.
    """

    enable: Sequence[str] = ()
    disable: Sequence[str] = ()
    only: Sequence[str] = ()
    passes: Sequence[Pass] = ()
    check: bool = True
    seed: int = 0
    sizes: Sequence[Mapping[str, int]] = field(default_factory=tuple)
    max_rounds: int = 100


@dataclass(frozen=True)
class OptimizeResult:
    """An optimised network and how it came about.

    Attributes:
        model: the network; names, types and dims of its inputs and outputs are the original's.
        log: what each pass did, what it left and why, how long it took, what was undone.
        before: size of the original.
        after: size of `model`.
    """

    model: ir.Model
    log: PassLog
    before: GraphStats
    after: GraphStats


def optimize(
    model: ir.Model,
    options: OptimizeOptions = OptimizeOptions(),
    progress: Progress = silent,
) -> OptimizeResult:
    """Optimise a copy of `model`; weights are shared, the original stays as it is.

    Every result is compared with the original (`OptimizeOptions.check`). When it differs, the log
    of the passes is bisected for the run that brought the difference, that pass is stopped from
    there on, and the others go on; so the answer is always as right as the comparison can tell.

    Raises:
        OptionError: a pass that does not exist was named.
    """
    default, opt_in = select(
        all_passes(options.passes),
        enable=options.enable,
        disable=options.disable,
        only=options.only,
    )
    schedule = Schedule(default=default, opt_in=opt_in, max_rounds=options.max_rounds)
    reference = None
    if options.check:
        reference = find_reference(model, seed=options.seed, sizes=options.sizes)
    return _Optimization(model, reference, progress).run(schedule)


class _Optimization:
    """Runs a schedule as often as it takes to be rid of every pass that changes a result."""

    def __init__(self, source: ir.Model, reference: Reference | None, progress: Progress) -> None:
        self._source = source
        self._reference = reference
        self._progress = progress
        self._interface = Interface(source)
        self._rolled_back: list[Rollback] = []

    def run(self, schedule: Schedule) -> OptimizeResult:
        while True:
            start = self._prepared()
            before = measure(start)
            try:
                model, log = self._attempt(schedule, start)
            except PassFailure as failure:
                schedule = self._without(schedule, failure.name, failure.step, str(failure), ())
                continue
            reason = self._difference(model)
            if reason is None or not any(run.changes for run in log.runs):
                break
            step = self._first_wrong_step(schedule, sum(bool(run.changes) for run in log.runs))
            culprit = [run for run in log.runs if run.changes][step]
            nodes = tuple(note.node for note in culprit.changes)
            schedule = self._without(schedule, culprit.name, step, reason, nodes)
        log.rolled_back = self._rolled_back
        if self._reference is not None:
            log.comparison = self._reference.text
        return OptimizeResult(model, log, before, measure(model))

    def _prepared(self) -> ir.Model:
        copy = self._source.clone()
        self._interface.relax(copy)
        infer_model(copy)
        return copy

    def _attempt(self, schedule: Schedule, start: ir.Model) -> tuple[ir.Model, PassLog]:
        log = run_passes(start, schedule, self._progress)
        self._interface.restore(start)
        return start, log

    def _difference(self, model: ir.Model) -> str | None:
        return None if self._reference is None else self._reference.difference(model)

    def _first_wrong_step(self, schedule: Schedule, steps: int) -> int:
        """Bisect: answer the first step after which the result differs."""
        right, wrong = 0, steps
        while wrong - right > 1:
            middle = (right + wrong) // 2
            model, _ = self._attempt(_up_to(schedule, middle), self._prepared())
            if self._difference(model) is None:
                right = middle
            else:
                wrong = middle
        return wrong - 1

    def _without(
        self, schedule: Schedule, name: str, step: int, reason: str, nodes: tuple[str, ...]
    ) -> Schedule:
        self._rolled_back.append(Rollback(name, step, nodes, reason))
        return Schedule(
            default=schedule.default,
            opt_in=schedule.opt_in,
            max_rounds=schedule.max_rounds,
            banned={**schedule.banned, name: step},
        )


def _up_to(schedule: Schedule, steps: int) -> Schedule:
    return Schedule(
        default=schedule.default,
        opt_in=schedule.opt_in,
        max_rounds=schedule.max_rounds,
        max_steps=steps,
        banned=schedule.banned,
    )
