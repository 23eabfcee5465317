"""Optimises a network: passes to a fixpoint, compared with the original, undone where wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtbuild.model.stats import GraphStats, measure
from trtbuild.passes.checked_run import CheckedRun
from trtbuild.passes.driver import Schedule
from trtbuild.passes.selection import all_passes, select
from trtbuild.passes.verify import find_reference
from trtbuild.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.passes.pass_base import Pass
    from trtbuild.passes.pass_log import PassLog
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
    run = CheckedRun(model, reference, progress)
    optimized, log = run.run(schedule)
    return OptimizeResult(optimized, log, run.size_before, measure(optimized))
