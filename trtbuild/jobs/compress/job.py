"""Makes a module smaller in rounds, with the user's training after each, and builds its engine at the end."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trtbuild.backends import choose_backend
from trtbuild.errors import OptionError, in_one_tree
from trtbuild.files import make_directory, staged_files
from trtbuild.jobs.compress.build import build_step
from trtbuild.jobs.compress.plan import (
    INT8_STAGES,
    Kind,
    Step,
    builds_in,
    chosen_round,
    is_due,
    plan_steps,
    ruling_of,
    verdict_of,
)
from trtbuild.jobs.compress.record import FILE, Compression, CompressionStep, begin, write_record
from trtbuild.jobs.compress.steps import (
    Setting,
    load_step,
    module_at,
    prune_step,
    save_module,
    sparse_step,
    train_step,
)
from trtbuild.jobs.paths import Besides, check_paths, data_inputs, named_inputs
from trtbuild.options.tables import to_table
from trtbuild.progress import Progress, silent, step_of
from trtbuild.pytorch.spec import HISTORY_FILE, WEIGHTS_FILE, with_axes
from trtbuild.recipes import CompressRecipe, TuneRecipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["CompressOutcome", "compress", "tune"]

MODULE = "module"
"""Name of the folder, in the run's folder, with the module that is kept."""

# Options that do not change the result, or are compared separately.
_FREE = frozenset(("output", "fresh", "source.weights"))


@dataclass(frozen=True)
class CompressOutcome:
    """The result of a run.

    Attributes:
        record: all steps and their figures; the same as in ``compression.json``.
        folder: folder of the run.
        resumed: number of steps that an earlier run had done.
        warnings: warnings from loading the module.
    """

    record: Compression
    folder: Path
    resumed: int
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no limit was missed."""
        return self.record.met is not False


@in_one_tree()
def compress(
    recipe: CompressRecipe, progress: Progress = silent, besides: Besides | None = None
) -> CompressOutcome:
    """Prune and train in rounds, make 2:4 zeros, fold, export and build in INT8, all within the limits.

    After every step the folder holds what is done; the same call continues from there. A round that loses
    more than the limits allow ends the pruning, and the rounds before it are kept. Of these the smallest is
    built; if its engine loses too much, the one before it.

    Args:
        recipe: what to compress, with which functions, how far.
        progress: called in every step.
        besides: other files that the command reads and writes.

    Raises:
        InputError: the module, the data, an option or a user's function is wrong; finished steps stay.
        OutputError: the folder cannot be written.
        MissingError: torch or a backend does not work here.
    """
    if recipe.prune is None and recipe.sparsity is None:
        raise OptionError(
            "say what to remove: --prune-macs 0.5, --prune 0.3 or --sparsity 2:4; `trtbuild tune` only "
            "trains."
        )
    if recipe.training.evaluate is None:
        raise OptionError(
            "a function is missing that says how good a module is: --evaluate package.module:function or "
            "script.py:function."
        )
    if recipe.int8 and recipe.data.data is None:
        raise OptionError("INT8 needs data to calibrate on: --data; or --no-int8.")
    rounds = 0 if recipe.prune is None else recipe.prune.steps
    steps = plan_steps(
        rounds,
        sparse=recipe.sparsity is not None,
        epochs=recipe.training.epochs,
        builds=True,
    )
    return _run(recipe, steps, None, progress, besides)


@in_one_tree()
def tune(
    recipe: TuneRecipe, progress: Progress = silent, besides: Besides | None = None
) -> CompressOutcome:
    """Let the user's function train a module, and save it so that it loads as weights of its factory.

    Args:
        recipe: what to train, with which functions.
        progress: called in every step.
        besides: other files that the command reads and writes.

    Raises:
        InputError: the module, an option or a user's function is wrong; finished steps stay.
        OutputError: the folder cannot be written.
        MissingError: torch is not installed.
    """
    allowance = recipe.allowance
    if allowance.limits and recipe.training.evaluate is None:
        raise OptionError("a limit needs --evaluate, which says how good the module is.")
    steps = plan_steps(0, sparse=False, epochs=recipe.training.epochs, builds=False)
    given = CompressRecipe(
        source=recipe.source,
        inputs=recipe.inputs,
        dynamic=recipe.dynamic,
        training=recipe.training,
        allowance=allowance,
        teacher=recipe.teacher is not None,
        int8=False,
        latency=None,
        fresh=recipe.fresh,
        output=recipe.output,
    )
    return _run(given, steps, recipe.teacher, progress, besides)


def _run(
    recipe: CompressRecipe,
    steps: tuple[Step, ...],
    teacher: Path | None,
    progress: Progress,
    besides: Besides | None,
) -> CompressOutcome:
    """Do the steps that are due and not done yet."""
    _check_stages(recipe, steps)
    setting, warnings = _setting(recipe, steps, teacher, progress, besides)
    folder = make_directory(recipe.output)
    asked = dict(sorted(_asked(recipe, setting)))
    names = tuple(step.name for step in steps)
    fresh = Compression(recipe.source.name, asked, names)
    record = begin(fresh, folder, anew=recipe.fresh)
    resumed = len(record.done)
    write_record(record, folder)
    for number, step in enumerate(steps):
        if record.has(step.name) or not is_due(step, record):
            continue
        progress(step_of("compress", step.name), number, len(steps))
        before = record.folder_of(step.round)
        record = record.having(_done(setting, step, record))
        write_record(record, folder)
        if step.epoch:
            shutil.rmtree(folder / before, ignore_errors=True)  # the module of the epoch before
    progress("compress", len(steps), len(steps))
    record = _finished(setting, record)
    write_record(record, folder)
    return CompressOutcome(record, folder, resumed, warnings)


_STAGES = {Kind.PRUNE: "pruned", Kind.SPARSE: "sparse", Kind.TRAIN: "tuned"}


def _check_stages(recipe: CompressRecipe, steps: tuple[Step, ...]) -> None:
    """Refuse a limit on a stage that the run does not have: nothing would check it."""
    stages = dict.fromkeys(_STAGES[step.kind] for step in steps if step.kind in _STAGES)
    known = (*stages, *(INT8_STAGES if recipe.int8 else ()))
    for stage, _ in recipe.allowance.stage_drops:
        if stage not in known:
            raise OptionError(
                f"--max-stage-drop {stage}: this run has no such stage; it has {', '.join(known)}."
            )


_DO: Mapping[Kind, Callable[[Setting, Step, Compression], CompressionStep]] = {
    Kind.LOADED: load_step,
    Kind.PRUNE: prune_step,
    Kind.SPARSE: sparse_step,
    Kind.TRAIN: train_step,
    Kind.BUILD: build_step,
}


def _done(setting: Setting, step: Step, record: Compression) -> CompressionStep:
    """Do a whole step, and record how long it took."""
    started = time.monotonic()
    done = _DO[step.kind](setting, step, record)
    return replace(done, seconds=time.monotonic() - started)


def _setting(
    recipe: CompressRecipe,
    steps: tuple[Step, ...],
    teacher: Path | None,
    progress: Progress,
    besides: Besides | None,
) -> tuple[Setting, tuple[str, ...]]:
    """Check everything that can be known before the first step, and load the module."""
    inputs = with_axes(recipe.inputs, recipe.dynamic)
    reads = named_inputs(the_checkpoint=recipe.source.weights, the_teacher=teacher)
    names = (FILE, f"{MODULE}/{HISTORY_FILE}", f"{MODULE}/{WEIGHTS_FILE}")
    written = [recipe.output / name for name in names]
    check_paths(
        (*reads, *data_inputs(recipe.data)), written, besides, folder=recipe.output / MODULE
    )
    from trtbuild.pytorch import load_module, require_torch
    from trtbuild.pytorch.training import the_function

    require_torch()
    require_torch("torch_pruning")  # pruned modules are stored in its form
    if builds_in(steps):
        choose_backend(recipe.backend)
    training = recipe.training
    train = the_function(training.train)
    evaluate = None if training.evaluate is None else the_function(training.evaluate)
    loaded = load_module(recipe.source)
    _check_dense(recipe, loaded.module)
    shown: Any = loaded.module if recipe.teacher else None
    if teacher is not None:
        shown = load_module(replace(recipe.source, weights=teacher)).module
    setting = Setting(
        recipe=recipe,
        inputs=inputs,
        train=train,
        evaluate=evaluate,
        loaded=loaded.module,
        teacher=shown,
        steps=steps,
        progress=progress,
    )
    return setting, loaded.warnings


def _check_dense(recipe: CompressRecipe, module: Any) -> None:
    """Refuse a module object that is pruned already: the same pruning would be applied twice."""
    from trtbuild.pytorch.prune import history_of

    is_object = not isinstance(recipe.source.target, str) and recipe.source.weights is None
    if is_object and history_of(module) is not None:
        raise OptionError(
            "this module was pruned before; save it with save_pruned, and give its factory with the folder "
            "as weights."
        )


def _asked(recipe: CompressRecipe, setting: Setting) -> Iterator[tuple[str, str]]:
    """Everything that decides the result, as texts; for modules also their weights."""
    from trtbuild.pytorch.training import weights_digest

    yield from ((name, text) for name, text in _flat(to_table(recipe)) if name not in _FREE)
    yield "weights", weights_digest(setting.loaded)
    if setting.teacher is not None:
        yield "the teacher's weights", weights_digest(setting.teacher)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _finished(setting: Setting, record: Compression) -> Compression:
    """Complete the record with the verdict, and save the module that is kept."""
    chosen = chosen_round(record, setting.steps)
    met, _ = verdict_of(record, setting.steps)
    ruling = ruling_of(record, setting.steps)
    if chosen is not None:
        place = make_directory(setting.recipe.output / MODULE)
        module = module_at(setting, record.folder_of(chosen))
        with staged_files(place, last=HISTORY_FILE) as folder:
            save_module(setting, module, folder)
    return replace(
        record,
        chosen=chosen,
        met=met,
        verdict=ruling.word,
        why=ruling.why,
        module=MODULE if chosen is not None else "",
    )
