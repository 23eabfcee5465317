"""Optimises a network: passes to a fixpoint, compared with the original, undone where wrong.

When the result differs, the runs that changed something are bisected: the same schedule, stopped
after so many of them, gives the same graph as far as it goes. The first run behind which the result
differs is to blame; its pass is banned from there on, and everything is run again up to its end. So
the work of all other passes, and what that pass did well before, stays.
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
from trtbuild.passes.selection import chosen_passes
from trtbuild.passes.verify import find_reference, processor_seconds, runs_once
from trtbuild.progress import silent
from trtbuild.runtime.isolated import IsolatedProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from trtbuild.model.stats import GraphStats
    from trtbuild.passes.verify import Reference
    from trtbuild.progress import Progress

__all__ = ["OptimizeResult", "optimize"]


_MANY_NODES = 5_000
"""Nodes of which ONNX Runtime opens a session in some 0.2 s."""

_UNTOUCHED = (
    "not compared: no pass has changed the network, and whether ONNX Runtime runs it was not tried"
)


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


@collector_at_rest()
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
    default, opt_in = chosen_passes(options)
    schedule = Schedule(default=default, opt_in=opt_in, max_rounds=options.max_rounds)
    interface = _Interface(model)
    first = model.clone()  # what the user gave is not touched, not even for a moment
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
            if not costly:  # it is run while the passes work; else when they change something
                reference()
            original = _Original(reference, costly)
        optimized, log = _CheckedRun(model, first, interface, original, progress).run(schedule)
    return OptimizeResult(optimized, log, size, measure(optimized))


@dataclass(frozen=True)
class _Original:
    """What results are compared with.

    Attributes:
        reference: begins to find out what the network answers, and returns that for when it is known; once.
        costly: whether it is not run for nothing: a run takes long, or its session takes long to open.
    """

    reference: Callable[[], Future[Reference]]
    costly: bool


class _CheckedRun:
    """Runs schedules over copies of one network.

    Args:
        source: the network; it is not changed.
        first: a copy of it, its interface opened.
        interface: of `source`.
        original: what results are compared with; None: do not compare.
        progress: told about each pass.
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
        # such a network is not run for nothing
        self._is_costly = original is not None and original.costly
        self._inexact: frozenset[str] = frozenset()

    def run(self, schedule: Schedule) -> tuple[ir.Model, PassLog]:
        """Run `schedule`, without the passes that raise or change a result from where they do."""
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
        """Return the run that made `model` differ from the original; None if it does not."""
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
            ModelError: it computes something else, so what follows would be about another network.
        """
        assert self._original is not None, "the caller looked"
        reason = self._original.reference().result().difference(model)
        if reason is not None:
            raise ModelError(
                f"the network changes by being copied: {reason}. Report it, and export the network in "
                "another form meanwhile."
            )

    def _difference(
        self, schedule: Schedule, steps: int, runs: list[PassRun], model: ir.Model | None = None
    ) -> str | None:
        """Compare the graph after so many steps, which is `model` when those are all."""
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
    """Names, types and dims of inputs and outputs, to be put back after the passes.

    What is inferred about an output may be more than its author promised. While the passes run, a
    dim of an input that has no name (or is negative, which some exporters write for "any") is given
    one, so that shape inference can follow it.
    """

    def __init__(self, model: ir.Model) -> None:
        ends = (*model.graph.inputs, *model.graph.outputs)
        self._dims = [None if value.shape is None else value.shape.copy() for value in ends]
        self._types = [value.type for value in ends]

    def open(self, model: ir.Model) -> None:
        """Name the open dims of the inputs, and infer all others from them."""
        for value in model.graph.inputs:
            if value.shape is not None:
                known = dims(value) or ()
                value.shape = ir.Shape(
                    f"{value.name}[{axis}]" if dim is None else dim
                    for axis, dim in enumerate(known)
                )
        infer_model(model)

    def restore(self, model: ir.Model) -> None:
        """Put types and dims back, and make all inner names unique once more."""
        ends = (*model.graph.inputs, *model.graph.outputs)
        for value, kind, shape in zip(ends, self._types, self._dims):
            value.type, value.shape = kind, shape
        for _ in rename_clashes(model):
            pass
