"""The steps of a compression: evaluating, pruning, training and saving a module."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trtbuild.backends import choose_backend
from trtbuild.data import calibration_source, choose_samples
from trtbuild.errors import BudgetError, OptionError
from trtbuild.files import make_directory
from trtbuild.jobs.compare import verification_batches
from trtbuild.jobs.compress.plan import Kind, base_round, builds_in
from trtbuild.jobs.compress.record import CompressionPoint, CompressionStep
from trtbuild.jobs.module_latency import (
    LOADED,
    latency_share,
    opened_float,
    sample_feeds,
    timed_against,
)
from trtbuild.model import input_specs, read_model
from trtbuild.model.stats import measure as count
from trtbuild.progress import Progress, silent
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.jobs.compress.plan import Step
    from trtbuild.jobs.compress.record import Compression
    from trtbuild.pytorch.prune import PruneResult
    from trtbuild.pytorch.spec import InputSpec, ModuleSource, PruneSpec
    from trtbuild.recipes import CompressRecipe
    from trtbuild.runtime.session import Session

__all__ = [
    "Setting",
    "as_module",
    "judged",
    "load_step",
    "loaded_network",
    "module_at",
    "module_held_at",
    "network_cost",
    "prune_step",
    "save_module",
    "source_of",
    "sparse_step",
    "train_step",
]

# If two evaluations of the same network differ by more than this share, they used different data.
_REPEATED = 1e-3
_RESTORED_ON, _RESTORE_BATCH = 512, 32


@dataclass
class Held:
    """The module that the last training left in memory, and its folder; the next epoch uses the same object.

    A pruned module is always loaded again, as a continued run does: in memory its tensors have another
    layout, which changes rounding.
    """

    folder: str = ""
    module: Any = None


@dataclass(frozen=True)
class Setting:
    """What all steps of a run use.

    Attributes:
        recipe: the user's options.
        inputs: inputs of the module, with their dynamic axes.
        train: trains a module.
        evaluate: evaluates a module, or None.
        loaded: the module as loaded.
        teacher: teacher for the training; None for no teacher.
        steps: all steps of the run.
        progress: called in every step.
        held: the module that the last training left.
    """

    recipe: CompressRecipe
    inputs: tuple[InputSpec, ...]
    train: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    loaded: Any
    teacher: Any
    steps: tuple[Step, ...]
    progress: Progress = silent
    held: Held = field(default_factory=Held)

    @property
    def limits(self) -> Mapping[str, float]:
        """Stage -> the largest loss allowed there."""
        return self.recipe.allowance.limits

    @property
    def name(self) -> str:
        """Stem of the file names."""
        return self.recipe.source.name.rpartition(":")[2].rpartition(".")[2].strip() or "module"

    @property
    def rounds(self) -> int:
        """Number of pruning rounds."""
        return sum(step.kind is Kind.PRUNE for step in self.steps)

    @property
    def builds(self) -> bool:
        """Whether networks are built at the end."""
        return builds_in(self.steps)

    def is_sparse(self, number: int) -> bool:
        """Return whether this round makes 2:4 zeros."""
        return self.recipe.sparsity is not None and number == self.rounds + 1


def source_of(setting: Setting, folder: str) -> ModuleSource:
    """Return the source of the module in a folder of the run, or of the module as loaded without a folder."""
    if not folder:
        return setting.recipe.source
    return replace(
        setting.recipe.source,
        weights=setting.recipe.output / folder,
        weights_key=None,
        weights_prefix=None,
        allow_missing=(),
        allow_unexpected=(),
    )


def module_at(setting: Setting, folder: str) -> Any:
    """Return the module in a folder of the run, in eval mode; without one, a copy of the loaded module."""
    from trtbuild.pytorch import load_module
    from trtbuild.pytorch.copies import copy_module

    if not folder:
        return copy_module(setting.loaded)
    return load_module(source_of(setting, folder)).module


def module_held_at(setting: Setting, folder: str) -> Any:
    """Return the module of a folder that a training left in memory; else do as `module_at`."""
    held = setting.held
    is_held = held.module is not None and held.folder == folder
    return held.module if is_held else module_at(setting, folder)


def save_module(setting: Setting, module: Any, folder: Path) -> None:
    """Save a module into `folder`, with its pruning, so that it loads as weights of the factory."""
    from trtbuild.pytorch.copies import copy_module, make_weights_plain
    from trtbuild.pytorch.inputs import bind_inputs
    from trtbuild.pytorch.prune import PruneHistory, history_of, save_pruned

    plain = copy_module(module)
    make_weights_plain(plain)
    whole = PruneHistory(bind_inputs(plain, setting.inputs).specs, (), (), {})
    save_pruned(plain, history_of(plain) or whole, folder)


def judged(
    setting: Setting, record: Compression, module: Any, cost: CompressionPoint
) -> CompressionPoint:
    """Return `cost` with the figure of the user's evaluation of `module`, and its loss.

    Args:
        setting: setting of the run.
        record: the steps before; the first point is the module as loaded.
        module: what to evaluate: a module, or an object that stands for one.
        cost: everything except the figures.
    """
    from trtbuild.pytorch.training import evaluated, name_of

    cost = replace(cost, limit=setting.limits.get(cost.stage))
    if setting.evaluate is None:
        return cost
    name = name_of(setting.recipe.training.evaluate)
    figure = evaluated(setting.evaluate, name, module, cost.what)
    first = record.points[0].figure if record.points else figure
    assert first is not None
    return replace(cost, figure=figure, lost=first - figure)


def as_module(setting: Setting, module: Any, session: Session) -> Any:
    """Return a module that runs `session` and returns outputs in the form of `module`."""
    from trtbuild.pytorch.inputs import bind_inputs
    from trtbuild.pytorch.running import run
    from trtbuild.pytorch.session_module import SessionModule

    bound = bind_inputs(module, setting.inputs)
    return SessionModule(session, bound, run(module, bound))


def _seed(setting: Setting, step: Step) -> None:
    """Seed the random numbers of a step, independent of what ran before in this process."""
    from trtbuild.pytorch.training import seed_all

    seed_all(setting.recipe.training.seed * 1_000_003 + step.round * 10_007 + (step.epoch or 0))


def loaded_network(setting: Setting) -> Path:
    """Return the path of the loaded module's ONNX file, for runs that build networks."""
    return setting.recipe.output / "0" / f"{setting.name}.loaded.onnx"


def network_cost(model: ir.Model) -> int:
    """Return the bytes of a network's constants."""
    return count(model).parameter_bytes


def _cost(setting: Setting, module: Any, stage: str, number: int, path: str) -> CompressionPoint:
    from trtbuild.pytorch.cost import count_cost
    from trtbuild.pytorch.inputs import bind_inputs

    cost = count_cost(module, bind_inputs(module, setting.inputs))
    tensors = module.state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return CompressionPoint(stage, number, path, None, None, None, cost.parameters, cost.macs, size)


def load_step(setting: Setting, step: Step, record: Compression) -> CompressionStep:
    """Evaluate the module as loaded and, if networks are built, also its exported network."""
    cost = _cost(setting, setting.loaded, "loaded", 0, "")
    point = judged(setting, record, setting.loaded, cost)
    _check_limit(setting, point)
    if not setting.builds:
        return CompressionStep(step.name, points=(point,))
    from trtbuild.pytorch import export_onnx
    from trtbuild.runtime.onnxruntime import open_session

    path = loaded_network(setting)
    make_directory(path.parent)
    export_onnx(setting.loaded, setting.inputs, path=path)
    cost = replace(
        point,
        stage="folded",
        path=f"0/{path.name}",
        weight_bytes=network_cost(read_model(path)),
    )
    so_far = replace(record, done=(CompressionStep(step.name, points=(point,)),))
    network = as_module(setting, setting.loaded, open_session(path))
    folded = judged(setting, so_far, network, cost)
    point = _timed(setting, setting.loaded, point)
    notes = tuple(_differences(point, folded))
    return CompressionStep(step.name, points=(point, folded), notes=notes)


def _check_limit(setting: Setting, point: CompressionPoint) -> None:
    """Refuse a limit that a useless module would meet, such as 1 on a share below 1."""
    figure, most = point.figure, setting.limits.values()
    if figure is not None and 0 < figure <= max(most, default=0.0):
        raise OptionError(
            f"the evaluation says {figure:.4g} of the module as loaded, and {max(most):g} may be lost, which "
            "is everything; a limit is in the unit of the evaluation's own figure."
        )


def _differences(loaded: CompressionPoint, folded: CompressionPoint) -> list[str]:
    if loaded.figure is None or folded.figure is None:
        return []
    if abs(loaded.figure - folded.figure) <= _REPEATED * abs(loaded.figure):
        return []
    note = (
        f"the evaluation says {loaded.figure:.6g} of the module and {folded.figure:.6g} of its exported "
        "network, which computes the same: it should judge the same data every time."
    )
    return [note]


def _timed(setting: Setting, module: Any, point: CompressionPoint) -> CompressionPoint:
    """Add the latency of `module` to `point`, also as a share of the loaded module's in the same turns."""
    options = setting.recipe.latency
    if options is None or not setting.builds:
        return point
    from trtbuild.pytorch import export_onnx
    from trtbuild.temporaries import temporary_folder

    backend, _ = choose_backend(setting.recipe.backend)
    feeds = sample_feeds(setting.loaded, setting.inputs)
    with temporary_folder() as folder, contextlib.ExitStack() as stack:
        base = stack.enter_context(
            opened_float(loaded_network(setting), backend, folder / "loaded")
        )
        others = {}
        if module is not setting.loaded:
            path = folder / "module.onnx"
            export_onnx(module, setting.inputs, path=path)
            others["module"] = stack.enter_context(opened_float(path, backend, folder / "module"))
        found = timed_against(base, others, feeds, options)
    taken = found.get("module", found[LOADED])
    return replace(point, latency_ms=taken.ms, latency_share=taken.share)


def prune_step(setting: Setting, step: Step, record: Compression) -> CompressionStep:
    """Remove channels from the module of the last good round; evaluate and save the rest."""
    from trtbuild.pytorch.prune import prune_channels

    assert setting.recipe.prune is not None
    base = module_at(setting, record.folder_of(base_round(record, step.round)))
    spec = _spec_of(setting, setting.recipe.prune, step.round, record)
    _seed(setting, step)
    with contextlib.ExitStack() as stack:
        latency = None
        if spec.latency is not None:
            timing = latency_share(setting.loaded, setting.inputs, setting.recipe.backend)
            latency = stack.enter_context(timing)
        try:
            pruned = prune_channels(base, setting.inputs, spec, latency=latency)
        except BudgetError as error:  # the earlier rounds are the best that can be reached
            return CompressionStep(step.name, notes=(str(error),))
    restored = _restored(setting, base, pruned)
    save_module(setting, pruned.module, setting.recipe.output / step.folder)
    cost = _cost(setting, pruned.module, "pruned", step.round, step.folder)
    point = judged(setting, record, pruned.module, cost)
    notes = (*restored, *(note for note in pruned.report.notes if "fine-tuned" not in note))
    gone = pruned.report.achieved
    return CompressionStep(step.name, points=(point,), folder=step.folder, gone=gone, notes=notes)


def _restored(setting: Setting, base: Any, pruned: PruneResult) -> tuple[str, ...]:
    """Adjust the weights that are left, in place, so that each layer computes what it did; return a note."""
    data = setting.recipe.data
    if not (setting.recipe.restore and setting.builds and data.data is not None):
        return ()
    from trtbuild.pytorch.prune import restore_outputs

    specs = input_specs(read_model(loaded_network(setting)))
    source = calibration_source(data, specs)
    if len(source.index.keys) > _RESTORED_ON:
        source = choose_samples(source, num_images=_RESTORED_ON, seed=data.seed)
    samples = [batch.feeds for batch in verification_batches(specs, source, _RESTORE_BATCH)]
    done = restore_outputs(base, pruned, samples)
    if not done:
        return ()
    count = sum(len(next(iter(sample.values()))) for sample in samples)
    layers, on = counted(len(done), "layer"), counted(count, "sample")
    return (f"{layers} with new weights by least squares on {on}.",)


def _spec_of(setting: Setting, wish: PruneSpec, number: int, record: Compression) -> PruneSpec:
    """The part of the pruning goal for one round: each round takes the same share of what is left.

    Goals that refer to the module as loaded are converted to what the earlier rounds have left.
    """
    part = number / setting.rounds
    first = record.points[0]
    now = next(p for p in reversed(record.points) if p.stage in ("loaded", "tuned"))
    left = 1.0
    for done in record.done:
        left *= 1.0 - (done.gone or 0.0)

    def of_one_round(ratio: float) -> float:
        return 1.0 - float((1.0 - ratio) ** (1.0 / setting.rounds))

    changed: dict[str, Any] = {
        "ratio": max(1.0 - (1.0 - wish.ratio) ** part / left, 0.0),
        "layer_ratios": tuple((name, of_one_round(ratio)) for name, ratio in wish.layer_ratios),
        "head_ratio": of_one_round(wish.head_ratio),
        "max_ratio": of_one_round(wish.max_ratio),
        "steps": 1,
    }
    if wish.macs is not None and first.macs and now.macs:
        changed["macs"] = min(wish.macs**part * first.macs / now.macs, 1.0)
    if wish.parameters is not None:
        changed["parameters"] = min(wish.parameters**part * first.parameters / now.parameters, 1.0)
    if wish.latency is not None:
        changed["latency"] = wish.latency**part  # timed against the module as loaded
    return replace(wish, **changed)


def sparse_step(setting: Setting, step: Step, record: Compression) -> CompressionStep:
    """Make 2:4 zeros in the smallest module that lost no more than allowed; evaluate and save it."""
    from trtbuild.pytorch.sparsity import make_two_four

    module = module_at(setting, record.folder_of(base_round(record, step.round)))
    layers = make_two_four(module)
    save_module(setting, module, setting.recipe.output / step.folder)
    cost = _cost(setting, module, "sparse", step.round, step.folder)
    point = judged(setting, record, module, cost)
    dense = [one for one in layers if not one.sparse]
    notes = (f"{len(layers) - len(dense)} of {len(layers)} layers are 2:4 sparse",)
    return CompressionStep(step.name, points=(point,), folder=step.folder, notes=notes)


def train_step(setting: Setting, step: Step, record: Compression) -> CompressionStep:
    """Let the user's function train the round's module, one epoch or all of them, and save it."""
    from trtbuild.pytorch.masks import is_masked
    from trtbuild.pytorch.sparsity import make_two_four
    from trtbuild.pytorch.training import name_of, trained

    module = module_held_at(setting, record.folder_of(step.round))
    if setting.is_sparse(step.round) and not is_masked(module):
        make_two_four(module)  # the zeros exist already: this masks them for the training
    extras: dict[str, Any] = {}
    if step.epoch is not None:
        extras |= {"epoch": step.epoch, "epochs": step.epochs}
    if setting.teacher is not None:
        extras["teacher"] = setting.teacher
    _seed(setting, step)
    before = {name: one.detach().clone() for name, one in module.named_parameters()}
    module = trained(setting.train, name_of(setting.recipe.training.train), module, extras)
    changed = any(
        name not in before or not bool((before[name] == one).all())
        for name, one in module.named_parameters()
    )
    notes = () if changed else ("the training changed no weight.",)
    save_module(setting, module, setting.recipe.output / step.folder)
    setting.held.folder, setting.held.module = step.folder, module
    done = CompressionStep(step.name, folder=step.folder, notes=notes)
    if not step.ends_training:
        return done
    cost = _cost(setting, module, "tuned", step.round, step.folder)
    point = judged(setting, record, module, cost)
    return replace(done, points=(_timed(setting, module, point),))
