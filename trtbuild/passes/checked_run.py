"""Runs a schedule of passes, compares the result with the original, and undoes what changed it.

When the result differs, the runs that changed something are bisected: the same schedule, stopped
after so many of them, gives the same graph as far as it goes. The first run behind which the result
differs is to blame; its pass is banned from there on, and everything is run again up to its end. So
the work of all other passes, and what that pass did well before, stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.model.inference import infer_model
from trtbuild.model.stats import GraphStats, measure
from trtbuild.passes.driver import PassFailure, Schedule, run_passes
from trtbuild.passes.interface import Interface
from trtbuild.passes.pass_log import PassLog, PassRun, Rollback

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtbuild.passes.verify import Reference
    from trtbuild.progress import Progress

__all__ = ["CheckedRun"]


class CheckedRun:
    """Runs schedules over copies of one network.

    Args:
        source: the network; it is not changed.
        reference: what it answers; None: do not compare.
        progress: told about each pass.
    """

    def __init__(self, source: ir.Model, reference: Reference | None, progress: Progress) -> None:
        self._source = source
        self._reference = reference
        self._progress = progress
        self._interface = Interface(source)
        self._inexact: frozenset[str] = frozenset()
        self.size_before = GraphStats({}, 0, 0, 0)

    def run(self, schedule: Schedule) -> tuple[ir.Model, PassLog]:
        """Run `schedule`, without the passes that raise or change a result from where they do."""
        self._inexact = frozenset(item.name for item in schedule.opt_in if not item.exact)
        rolled_back: list[Rollback] = []
        while True:
            try:
                model, log = self._attempt(schedule)
                blamed = self._blame(schedule, model, log)
            except PassFailure as failure:
                blamed = Rollback(failure.name, failure.step, (), str(failure))
            if blamed is None:
                break
            rolled_back.append(blamed)
            step = min(blamed.step, schedule.banned.get(blamed.name, blamed.step))
            schedule = replace(schedule, banned={**schedule.banned, blamed.name: step})
        log.rolled_back = rolled_back
        if self._reference is not None:
            log.comparison = self._reference.text
        return model, log

    def _attempt(self, schedule: Schedule) -> tuple[ir.Model, PassLog]:
        model = self._source.clone()
        self._interface.relax(model)
        infer_model(model)
        self.size_before = measure(model)
        log = run_passes(model, schedule, self._progress)
        self._interface.restore(model)
        return model, log

    def _blame(self, schedule: Schedule, model: ir.Model, log: PassLog) -> Rollback | None:
        """Return the run that made `model` differ from the original; None if it does not."""
        runs = [run for run in log.runs if run.changes]
        if self._reference is None or not runs:
            return None
        exact = next((i for i, run in enumerate(runs) if run.name in self._inexact), len(runs))
        for steps in sorted({exact, len(runs)} - {0}):
            reason = self._difference(schedule, steps, runs, model)
            if reason is not None:
                return self._bisect(schedule, steps, runs, reason)
        return None

    def _difference(
        self, schedule: Schedule, steps: int, runs: list[PassRun], model: ir.Model | None = None
    ) -> str | None:
        """Compare the graph after so many steps, which is `model` when those are all."""
        assert self._reference is not None, "the caller looked"
        coarse = any(run.name in self._inexact for run in runs[:steps])
        if model is None or steps < len(runs):
            model, _ = self._attempt(replace(schedule, max_steps=steps))
        return self._reference.difference(model, coarse=coarse)

    def _bisect(self, schedule: Schedule, steps: int, runs: list[PassRun], reason: str) -> Rollback:
        right, wrong = 0, steps
        while wrong - right > 1:
            middle = (right + wrong) // 2
            found = self._difference(schedule, middle, runs)
            if found is None:
                right = middle
            else:
                wrong, reason = middle, found
        culprit = runs[wrong - 1]
        nodes = tuple(note.node for note in culprit.changes)
        return Rollback(culprit.name, wrong - 1, nodes, reason)
