"""Optimizes a network: passes run to a fixpoint, the result is compared, and wrong passes are undone.

If the result differs from the original, the runs that changed something are bisected: the same
schedule, stopped after some of them, reproduces the graph at that point. The first run after which the
result differs is at fault; its pass is banned from there on, and everything runs again. So the
work of all other passes, and what that pass did correctly before, is kept.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError
from trtbuild.model.collecting import collector_at_rest
from trtbuild.model.graph_library import ir
from trtbuild.model.inference import infer_model
from trtbuild.model.names import rename_clashes
from trtbuild.model.opset import WEIGHTS_WITHOUT_INPUTS
from trtbuild.model.shapes import dims
from trtbuild.model.stats import measure
from trtbuild.model.writing import without_weights
from trtbuild.options.optimize import OptimizeOptions
from trtbuild.passes.driver import PassFailure, PassLog, PassRun, Rollback, Schedule, run_passes
from trtbuild.passes.reference import find_reference, processor_seconds, runs_once
from trtbuild.passes.selection import chosen_passes
from trtbuild.progress import silent
from trtbuild.runtime.isolated import IsolatedProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from trtbuild.model.stats import GraphStats
    from trtbuild.passes.reference import Reference
    from trtbuild.progress import Progress

__all__ = ["OptimizeResult", "optimize"]


_MANY_NODES = 5_000
"""ONNX Runtime opens a session of this many nodes in about 0.2 s."""

_UNTOUCHED = (
    "not compared: no pass has changed the network, and whether ONNX Runtime runs it was not tried"
)


@dataclass(frozen=True)
class OptimizeResult:
    """An optimized network and how it was made.

    Attributes:
        model: the network; names, types and dims of its inputs and outputs are the original's.
        log: what each pass did, what it did not rewrite and why, how long it took, what was undone.
        before: size of the original.
        after: size of `model`.
    """

    model: ir.Model
    log: PassLog
    before: GraphStats
    after: GraphStats


@collector_at_rest()
def optimize(
    model: ir.Model,
    options: OptimizeOptions = OptimizeOptions(),
    progress: Progress = silent,
) -> OptimizeResult:
    """Optimize a copy of `model`; weights are shared, the original does not change.

    Every result is compared with the original (`OptimizeOptions.check`). If it differs, bisection finds
    the run at fault; its pass is banned from there on, and the others go on. So the result is as correct
    as the comparison can tell.

    Raises:
        OptionError: a named pass does not exist.
    """
    default, opt_in = chosen_passes(options)
    schedule = Schedule(default=default, opt_in=opt_in, max_rounds=options.max_rounds)
    interface = _Interface(model)
    first = model.clone()  # the user's network is never changed, not even temporarily
    detached = without_weights(first) if options.check else None
    interface.open(first)
    size = measure(first)
    with ThreadPoolExecutor(1) as beside, IsolatedProcess(processor_seconds(size)) as isolated:
        original = None
        if detached is not None:
            once = runs_once(first, size)
            reference = functools.cache(functools.partial(
                beside.submit, find_reference, model, detached, isolated,
                once=once, seed=options.seed, sizes=options.sizes,
            ))  # fmt: skip
            costly = once or size.node_count > _MANY_NODES
            if not costly:  # then it runs while the passes work; else when they change something
                reference()
            original = _Original(reference, costly)
        optimized, log = _CheckedRun(model, first, interface, original, progress).run(schedule)
    return OptimizeResult(optimized, log, size, measure(optimized))


@dataclass(frozen=True)
class _Original:
    """The network that results are compared with.

    Attributes:
        reference: the first call starts to compute the original's results in another thread; returns the
            future.
        costly: whether the original is run only if needed, since a run or opening its session takes long.
    """

    reference: Callable[[], Future[Reference]]
    costly: bool


class _CheckedRun:
    """Runs schedules over copies of one network.

    Args:
        source: the network, which is not changed.
        first: a copy of it, with its interface opened.
        interface: of `source`.
        original: what results are compared with; None: do not compare.
        progress: called for each pass.
    """

    def __init__(
        self,
        source: ir.Model,
        first: ir.Model,
        interface: _Interface,
        original: _Original | None,
        progress: Progress,
    ) -> None:
        self._source = source
        self._first: ir.Model | None = first
        self._interface = interface
        self._original = original
        self._progress = progress
        # a costly network that no pass has changed is not run
        self._is_costly = original is not None and original.costly
        self._inexact: frozenset[str] = frozenset()

    def run(self, schedule: Schedule) -> tuple[ir.Model, PassLog]:
        """Run `schedule`; ban each pass that raises or changes a result, from its first such run on."""
        self._inexact = frozenset(item.name for item in schedule.opt_in if not item.exact)
        rolled_back: list[Rollback] = []
        while True:
            try:
                model, log = self._attempt(schedule)
                if not rolled_back and log.untouched and self._is_costly:
                    log.comparison = _UNTOUCHED
                    return model, log
                blamed = self._blame(schedule, model, log)
            except PassFailure as failure:
                blamed = Rollback(failure.name, failure.step, (), str(failure))
            if blamed is None:
                break
            rolled_back.append(blamed)
            step = min(blamed.step, schedule.banned.get(blamed.name, blamed.step))
            schedule = replace(schedule, banned={**schedule.banned, blamed.name: step})
        log.rolled_back = rolled_back
        if self._original is not None:
            log.comparison = self._original.reference().result().text
        return model, log

    def _attempt(self, schedule: Schedule) -> tuple[ir.Model, PassLog]:
        model, self._first = self._first, None
        if model is None:
            model = self._source.clone()
            self._interface.open(model)
        changed = (lambda: None) if self._original is None else self._original.reference
        log = run_passes(model, schedule, self._progress, changed)
        self._interface.restore(model)
        if any(not value.is_graph_input() for value in model.graph.initializers.values()):
            model.ir_version = max(model.ir_version, WEIGHTS_WITHOUT_INPUTS)
        return model, log

    def _blame(self, schedule: Schedule, model: ir.Model, log: PassLog) -> Rollback | None:
        """Return the run that made `model` differ from the original; None if it does not differ."""
        if self._original is None:
            return None
        runs = [run for run in log.runs if run.changes]
        if not runs:
            self._check_round_trip(model)
            return None
        exact = next((i for i, run in enumerate(runs) if run.name in self._inexact), len(runs))
        for steps in sorted({exact, len(runs)} - {0}):
            reason = self._difference(schedule, steps, runs, model)
            if reason is not None:
                return self._bisect(schedule, steps, runs, reason)
        return None

    def _check_round_trip(self, model: ir.Model) -> None:
        """Compare a copy that no pass has changed.

        Raises:
            ModelError: its results differ, so copying changes the network.
        """
        assert self._original is not None, "the caller looked"
        reason = self._original.reference().result().difference(model)
        if reason is not None:
            raise ModelError(
                f"copying the network changes it: {reason}. Report it, and export the network in another "
                "form meanwhile."
            )

    def _difference(
        self, schedule: Schedule, steps: int, runs: list[PassRun], model: ir.Model | None = None
    ) -> str | None:
        """Compare the graph after so many steps; `model` is the graph after all of them."""
        assert self._original is not None, "the caller looked"
        coarse = any(run.name in self._inexact for run in runs[:steps])
        if model is None or steps < len(runs):
            model, _ = self._attempt(replace(schedule, max_steps=steps))
        return self._original.reference().result().difference(model, coarse=coarse)

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


class _Interface:
    """Names, types and dims of inputs and outputs, to be restored after the passes.

    Inferred dims of an output may promise more than its author did. While the passes run, input dims
    without a name (or negative, which some exporters write for "any") get one, so that shape inference can
    track them.
    """

    def __init__(self, model: ir.Model) -> None:
        ends = (*model.graph.inputs, *model.graph.outputs)
        self._dims = [None if value.shape is None else value.shape.copy() for value in ends]
        self._types = [value.type for value in ends]

    def open(self, model: ir.Model) -> None:
        """Name the unnamed dims of the inputs, and infer all others from them."""
        for value in model.graph.inputs:
            if value.shape is not None:
                known = dims(value) or ()
                value.shape = ir.Shape(
                    f"{value.name}[{axis}]" if dim is None else dim
                    for axis, dim in enumerate(known)
                )
        infer_model(model)

    def restore(self, model: ir.Model) -> None:
        """Restore types and dims, and make all inner names unique again."""
        ends = (*model.graph.inputs, *model.graph.outputs)
        for value, kind, shape in zip(ends, self._types, self._dims):
            value.type, value.shape = kind, shape
        for _ in rename_clashes(model):
            pass
