"""The stages of a build in order: from a float ONNX file to an engine, its verdict and its manifest."""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from trtbuild.artifact import Record
from trtbuild.backends.base import BuildRequest
from trtbuild.calibration import load_ahead
from trtbuild.data import HELD_OUT_SHARE, DataPlan, account_for, batches, open_data
from trtbuild.errors import OptionError, in_one_tree
from trtbuild.files import flush, make_directory, staged_files, write_bytes
from trtbuild.jobs.build_checks import check_build, check_inputs, chosen_backends, options_for
from trtbuild.jobs.check import PARSERS, check_source, form_check
from trtbuild.jobs.compare import (
    check_float_outputs,
    check_task,
    compare_with_float,
    forms_beside,
    has_labels,
    judged_by,
    task_of,
    verification_batches,
)
from trtbuild.jobs.diagnosis import better_rule, effects_of, layers_at_fault
from trtbuild.jobs.foreign_operators import with_left_behind
from trtbuild.jobs.layer_timing import timing_of
from trtbuild.jobs.loading import load, load_recorded, prepare
from trtbuild.jobs.manifest import file_records, write_manifest
from trtbuild.jobs.module_stages import (
    check_stage_limits,
    judged_gates,
    with_stages,
    with_weights_alone,
)
from trtbuild.jobs.prequantized import prequantized_build, with_gaps_filled
from trtbuild.jobs.ranges import int8_candidate, recalibration, with_portable_choice
from trtbuild.jobs.speed import Speed, open_fp16, take_times
from trtbuild.jobs.targets import engine_request
from trtbuild.jobs.zeros import with_cost_of_zeros
from trtbuild.model import input_specs, static_batch, write_model
from trtbuild.model.collecting import collector_on_new_objects
from trtbuild.options.compare import ComparisonOptions
from trtbuild.options.effort import Effort
from trtbuild.progress import Progress, silent
from trtbuild.result import AlsoBuilt, EngineResult
from trtbuild.runtime.manifest_beside import manifest_name
from trtbuild.runtime.onnxruntime import open_session, opening_beside
from trtbuild.runtime.ray_cluster import staying_joined
from trtbuild.search.stage import meet_budget
from trtbuild.titles import ALSO, ENGINE, FLOAT, FP16, PORTABLE
from trtbuild.verification.gate import NEEDS_LABELS, Gate, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.backends.base import Backend, Engine
    from trtbuild.data import Batch, Source
    from trtbuild.jobs.paths import Besides
    from trtbuild.manifest import FileRecord
    from trtbuild.recipes import EngineRecipe
    from trtbuild.runtime.session import Feeds, Session
    from trtbuild.search.budget import Tuned
    from trtbuild.search.candidate import Candidate
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Verdict

__all__ = ["build_engine"]

_log = logging.getLogger(__name__)

# With an accuracy budget, this share of the data is kept for the verdict and never used by the search.
_JUDGED_SHARE = 0.5


@dataclass(frozen=True)
class _Build:
    """What all steps of a build use.

    Attributes:
        recipe: the user's options.
        chosen: the backends, each with the reason; see `chosen_backends`.
        plan: the data.
        comparison: what is measured, with the judge of the network's task if one is known.
        progress: called in every stage.
        check_form: gives TensorRT's form to NVIDIA's parser, unless NVIDIA's builder gets it anyway.
    """

    recipe: EngineRecipe
    chosen: tuple[tuple[Backend, str], ...]
    plan: DataPlan
    comparison: ComparisonOptions
    progress: Progress
    check_form: Callable[[Path], None]

    @property
    def by_nvidia(self) -> bool:
        """Whether a builder of NVIDIA's is among the backends."""
        return any(backend.name in PARSERS for backend, _ in self.chosen)


@in_one_tree()
@collector_on_new_objects()
def build_engine(
    recipe: EngineRecipe,
    progress: Progress = silent,
    besides: Besides | None = None,
    *,
    explains: bool = False,
) -> EngineResult:
    """Do the main job: read, prepare, calibrate, quantize, build, verify, record.

    Args:
        recipe: recipe of the build.
        progress: called in every stage.
        besides: other files that the command reads and writes; they are checked with the recipe's.
        explains: whether to find the effect of every layer on the outputs, for a report: some 16 runs for
            gradients.

    Raises:
        InputError: the model, the data or an option is wrong; no incomplete file is left.
        MissingError: the requested backend does not work here.
    """
    check_build(recipe, besides)  # also reports at once what is not installed
    with _form_check(recipe) as check_form:
        return _done(recipe, progress, check_form, explains=explains)


def _form_check(recipe: EngineRecipe) -> AbstractContextManager[Callable[[Path], None]]:
    """Starts NVIDIA's parser, to check TensorRT's form; does nothing if a builder of NVIDIA's runs anyway."""
    by_nvidia = any(backend.name in PARSERS for backend, _ in chosen_backends(recipe))
    if by_nvidia or not recipe.int8:
        return contextlib.nullcontext(lambda _: None)
    return form_check(recipe.model, recipe.tensorrt.plugins)


def _done(
    recipe: EngineRecipe,
    progress: Progress,
    check_form: Callable[[Path], None],
    *,
    explains: bool,
) -> EngineResult:
    """Do the job of `build_engine` for a checked recipe."""
    artifact = _loaded(recipe)
    prequantized = prequantized_build(artifact, recipe)
    if prequantized is not None:
        artifact = prequantized.artifact
    plan = open_data(
        recipe.data,
        input_specs(artifact.source),
        calibrates=recipe.calibrates if prequantized is None else prequantized.calibrates,
        held_out=_JUDGED_SHARE if recipe.may_search else HELD_OUT_SHARE,
    )
    preprocess = recipe.data.preprocess
    task = task_of(artifact.source, plan.verification, recipe.task, preprocess)
    comparison = judged_by(ComparisonOptions(), artifact.source, task, preprocess)
    build = _Build(recipe, chosen_backends(recipe), plan, comparison, progress, check_form)
    _check_judged(artifact, build)
    account = account_for(recipe.data, calibrate=plan.calibration, verify=plan.verification)
    account = replace(account, may_stop_early=recipe.calibrate.until_stable is not None)
    artifact = artifact.having(Record("data", str(account), account.details))
    check_float_outputs(artifact.source, plan.verification, recipe, comparison, progress)
    output = make_directory(recipe.output)
    tuned = None
    if prequantized is not None:
        artifact = with_left_behind(with_gaps_filled(prequantized, artifact, plan, progress))
    else:
        artifact, tuned = _prepared(artifact, build)
    with staged_files(output, last=manifest_name(artifact.name)) as folder:
        result = _built(artifact, tuned, build, folder, explains=explains)
    return result.moved_to(output)


def _loaded(recipe: EngineRecipe) -> Artifact:
    """The network as it is in its file, with the placement request and the history of earlier steps."""
    axes = recipe.data.batch_axes
    artifact = load_recorded(recipe.model, axes)
    check_inputs(recipe, input_specs(artifact.source))
    request = engine_request(recipe, [one.name for one, _ in chosen_backends(recipe)])
    artifact = replace(artifact, history=(*recipe.earlier, *artifact.history), request=request)
    if recipe.loaded is None:
        return artifact
    return replace(artifact, reference=load(recipe.loaded, axes).source)


def _prepared(artifact: Artifact, build: _Build) -> tuple[Artifact, Tuned | None]:
    """Run graph passes on a float network, and quantize it if INT8 was asked for."""
    recipe, progress = build.recipe, build.progress
    if recipe.calibrates:
        load_ahead()
    artifact = prepare(artifact, recipe.optimize, progress)
    if not recipe.int8:
        return artifact, None
    names = [backend.name for backend, _ in build.chosen]
    check_source(artifact, names, recipe.tensorrt.plugins, progress)
    with staying_joined(recipe.calibrate.ray if recipe.calibrates else None):
        return _in_int8(artifact, build)


def _in_int8(artifact: Artifact, build: _Build) -> tuple[Artifact, Tuned | None]:
    """Find ranges, search if a limit requires it, and place Q/DQ."""
    recipe, plan, progress = build.recipe, build.plan, build.progress
    if recipe.weights_only:
        quick = replace(
            recipe, effort=Effort.FAST, calibrate=replace(recipe.calibrate, method="minmax")
        )
        return with_weights_alone(int8_candidate(artifact, plan, quick, progress).realized()), None
    start = int8_candidate(artifact, plan, recipe, progress)
    tuned = _tuned(start, build)
    artifact = start.realized() if tuned is None else tuned.artifact
    artifact = with_portable_choice(artifact, plan, recipe, progress)
    return with_left_behind(artifact), tuned


def _built(
    artifact: Artifact, tuned: Tuned | None, build: _Build, output: Path, *, explains: bool
) -> EngineResult:
    """Write, build, compare, time and record in the folder `output`."""
    recipe, progress = build.recipe, build.progress
    found = _measured(artifact, build, output)
    engines, few = found.engines, found.few
    artifact, comparisons = with_stages(artifact, found.comparisons, found.speed.samples)
    artifact = with_cost_of_zeros(artifact, few, progress)
    layers = layers_at_fault(artifact, comparisons, few, progress)
    result = EngineResult(
        artifact=artifact,
        engine=engines[ENGINE],
        why_backend=build.chosen[0][1],
        also=None if ALSO not in engines else AlsoBuilt(engines[ALSO], build.chosen[1][1]),
        files={name: record.what for name, record in found.files.items()},
        comparisons=comparisons,
        verdicts=_verdicts(recipe, found.comparisons, comparisons),
        latency=found.speed.samples,
        controls=found.speed.controls,
        without_fp16=found.speed.without_fp16,
        speed_limits=recipe.speed_limits,
        manifest=output / manifest_name(artifact.name),
        kept_apart=recipe.calibration is None and (artifact.came_in_float or recipe.weights_only),
        layers=layers,
        effects=effects_of(artifact, layers, few, progress) if explains else None,
        tuned=tuned,
    )
    for gap in result.below_tensorrt_form:
        _log.warning("%s.", gap)
    if result.unjudged_collapse:
        result = replace(result, better_rule=better_rule(artifact, few, progress))
    return replace(result, record=write_manifest(result, recipe, build.plan, found.files))


def _verdicts(
    recipe: EngineRecipe, found: Mapping[str, Comparison], comparisons: Mapping[str, Comparison]
) -> dict[str, Verdict]:
    """The verdict on each network, and on each step that has a limit of its own.

    ONNX Runtime's form has no limits when it stands for an engine.
    """
    gates = {name: Gate() if name == PORTABLE else recipe.gate for name in comparisons}
    judged = judged_gates(recipe, found, gates)
    return {name: judge(found[name], gate) for name, gate in judged.items()}


@dataclass(frozen=True)
class _Measured:
    """Written files, engines by name, their figures against float, the first few batches, and the times."""

    files: dict[str, FileRecord]
    engines: dict[str, Engine]
    comparisons: dict[str, Comparison]
    few: tuple[Batch, ...]
    speed: Speed


def _measured(artifact: Artifact, build: _Build, output: Path) -> _Measured:
    """Write the network, build the engines, and compare and time those that run here."""
    recipe = build.recipe
    with opening_beside(2) as beside, contextlib.ExitStack() as stack:
        # both get copies: while a network is written or opened, it refers to other files and lacks weights
        in_int8 = None
        if recipe.int8 and artifact.quantized is not None:
            in_int8 = artifact.whole(artifact.quantized.clone())
        form = beside.submit(_write_network, artifact, in_int8, output)
        # packing the weights of a large network takes ONNX Runtime seconds on one core
        in_float = beside.submit(open_session, artifact.float_reference.clone())
        request = _request(artifact, build, output)
        engines, sessions = _opened(build, request, stack)
        # Digests start now: opening float takes longest, and a third busy thread would slow it down.
        # NVIDIA's parser is a separate process, which reads while this one compares.
        path = output / _form_name(artifact)
        written = [beside.submit(_recorded, form, path, build.check_form)]
        written += [beside.submit(_on_disk, one.files, output) for one in engines.values()]
        sessions[FLOAT] = in_float.result()
        stack.callback(sessions[FLOAT].close)
        form.result()  # raises write errors before the long comparison
        comparisons, few = _compared(artifact, sessions, build)
        # wait here: other threads would disturb the timing
        files = {name: one for found in written for name, one in found.result().items()}
        speed = Speed()
        if recipe.latency and len(sessions) > 1:
            speed = _timed(build, sessions, request, few, stack)
    return _Measured(files, engines, comparisons, few, speed)


def _compared(
    artifact: Artifact, sessions: Mapping[str, Session], build: _Build
) -> tuple[dict[str, Comparison], tuple[Batch, ...]]:
    """Compare all sessions except float, and forms of the network, with float."""
    recipe, inputs = build.recipe, input_specs(artifact.source)
    data = verification_batches(inputs, build.plan.verification, recipe.batch_size, build.progress)
    engines = {name: one for name, one in sessions.items() if name != FLOAT}
    with forms_beside(artifact, engines, fp16=recipe.fp16 and build.by_nvidia) as candidates:
        return compare_with_float(artifact, sessions[FLOAT], candidates, data, build.comparison)


def _timed(
    build: _Build,
    sessions: Mapping[str, Session],
    request: BuildRequest,
    few: tuple[Batch, ...],
    stack: contextlib.ExitStack,
) -> Speed:
    """Time float and the engines; for INT8 also an FP16 engine to compare with, if the backend builds one."""
    recipe, backend = build.recipe, build.chosen[0][0]
    assert recipe.latency is not None
    in_fp16, why = None, ""
    if recipe.int8 and recipe.fp16_baseline and ENGINE in sessions:
        own = replace(request, options=options_for(backend, recipe))
        in_fp16, why = open_fp16(backend, own, few[0].feeds, stack)
    timed = sessions if in_fp16 is None else {**sessions, FP16: in_fp16}
    speed = take_times(
        request.artifact, timed, few, recipe.latency, recipe.speed_limits, build.progress
    )
    return replace(speed, without_fp16=why)


def _opened(
    build: _Build, request: BuildRequest, stack: contextlib.ExitStack
) -> tuple[dict[str, Engine], dict[str, Session]]:
    """Build the engines; return them, and sessions of those that run here, which `stack` closes."""
    engines: dict[str, Engine] = {}
    sessions: dict[str, Session] = {}
    for name, (backend, _) in zip((ENGINE, ALSO), build.chosen):
        build.progress("build", len(engines), len(build.chosen))
        engine = backend.build(replace(request, options=options_for(backend, build.recipe)))
        engines[name] = engine
        if not engine.not_opened:
            sessions[name] = backend.open(engine.path)
            stack.callback(sessions[name].close)
    build.progress("build", len(build.chosen), len(build.chosen))
    return engines, sessions


def _form_name(artifact: Artifact) -> str:
    return f"{artifact.name}.int8.onnx"


def _check_judged(artifact: Artifact, build: _Build) -> None:
    """Check that everything with a limit will be measured."""
    recipe, task = build.recipe, build.comparison.make_task
    labelled = has_labels(build.plan.verification)
    check_task(recipe.gate, task)
    check_stage_limits(artifact, recipe, has_labels=labelled, has_task=task is not None)
    if recipe.gate.max_top1_drop is not None and not labelled:
        raise OptionError(NEEDS_LABELS)


def _tuned(start: Candidate, build: _Build) -> Tuned | None:
    recipe, plan = build.recipe, build.plan
    if not recipe.may_search or plan.calibration is None:
        return None
    return meet_budget(
        start,
        recalibration(plan.calibration, recipe, build.progress),
        recipe.gate,
        task=build.comparison.make_task,
        options=recipe.tune,
        timing=timing_of(build.chosen[0][0].name, recipe.tensorrt),
        progress=build.progress,
    )


def _recorded(
    written: Future[dict[str, str]], form: Path, check_form: Callable[[Path], None]
) -> dict[str, FileRecord]:
    """Wait for written files and return their records; check TensorRT's form first."""
    files = written.result()
    check_form(form)
    return _on_disk(files, form.parent)


def _on_disk(files: Mapping[str, str], folder: Path) -> dict[str, FileRecord]:
    """What the manifest says of files that were written, on the disk: a build waits for that at its end."""
    for name in files:
        flush(folder / name)
    return file_records(files, folder)


def _write_network(artifact: Artifact, in_int8: ir.Model | None, output: Path) -> dict[str, str]:
    """Write a network in INT8 and its ranges; return file name -> description."""
    if in_int8 is None:
        return {}
    path = output / _form_name(artifact)
    what = "explicit Q/DQ in TensorRT's form: the reference for accuracy, the input of TensorRT 11"
    files = {file.name: what for file in write_model(in_int8, path)}
    calibration = artifact.given_calibration or artifact.calibration
    if calibration is None:
        return files
    ranges = output / f"{artifact.name}.calibration.json"
    keeps = calibration.histograms is not None
    write_bytes(ranges, calibration.to_bytes(histograms=keeps))
    # bias correction, channel scaling and the like are in the network with Q/DQ alone
    of = "all tensors" if artifact.given_calibration is None else "the network as it was given"
    return {**files, ranges.name: f"ranges of {of}, for --calibration"}


def _request(artifact: Artifact, build: _Build, output: Path) -> BuildRequest:
    recipe, plan = build.recipe, build.plan

    def feeds_of(source: Source) -> Iterator[Feeds]:
        size = static_batch(artifact.source) or recipe.batch_size
        return (batch.feeds for batch in batches(source, size))

    sources = [one for one in (plan.calibration, plan.verification) if one is not None]
    return BuildRequest(
        artifact,
        output,
        None if plan.calibration is None else functools.partial(feeds_of, plan.calibration),
        recipe.fp16,
        recipe.tensorrt,
        build.progress,
        sample_batches=lambda: chain.from_iterable(map(feeds_of, sources)),
    )
