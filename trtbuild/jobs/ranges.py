"""The ranges of a build: from a file, by one rule, or chosen by their effect on the outputs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.artifact import Record
from trtbuild.backends.tensorrt.precision import is_implicit
from trtbuild.calibration import calibrate, changes_since, load_calibration, spot_check
from trtbuild.errors import ModelError
from trtbuild.jobs.build_checks import chosen_backends
from trtbuild.jobs.cache import read_cache
from trtbuild.jobs.compare import has_labels
from trtbuild.json_codec import encode
from trtbuild.model.operators import RECURRENT, WEIGHTED
from trtbuild.model.traversal import all_nodes, bodies, label
from trtbuild.options.compare import REFERENCE_BACKEND
from trtbuild.options.effort import seconds_for
from trtbuild.options.tune import FLOAT_PERCENT
from trtbuild.progress import Progress, silent
from trtbuild.quantization import check_floats, place, say_without_range, watched_tensors
from trtbuild.quantization.half import float_activations
from trtbuild.quantization.masks import reaches_minus_infinity
from trtbuild.runtime.tensorrt.versions import TENSORRT, installed
from trtbuild.search.candidate import Candidate
from trtbuild.search.deadline import Deadline, WorkClock
from trtbuild.search.improve import FloatRoom, improve, were_tried
from trtbuild.search.portable.choose import choose_portable
from trtbuild.search.ranges.check_images import CalibrationImages
from trtbuild.search.ranges.choose import choose_ranges
from trtbuild.search.recalibration import Recalibration
from trtbuild.verification.label_check import FloatAnswers
from trtbuild.verification.tasks.choose import task_kind
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import DataPlan, Source
    from trtbuild.recipes import EngineRecipe
    from trtbuild.verification.label_check import LabelCheck

__all__ = [
    "int8_candidate",
    "observed_tensors",
    "recalibration",
    "with_portable_choice",
]

# Boxes, letters, neighbours and edges depend on few values; a class is right long before its scores are
# close.
_ON_FEW_VALUES = frozenset({"ctc", "detect", "embed", "segment"})


def int8_candidate(
    artifact: Artifact, plan: DataPlan, recipe: EngineRecipe, progress: Progress
) -> Candidate:
    """Return the network with a range for every tensor that INT8 needs, ready to be quantized.

    The ranges come from the recipe's file, or from the rule that it names; otherwise they are chosen by their
    effect on the outputs, and moves that help are applied.

    Raises:
        ModelError: nothing of the network would run in INT8.
        OptionError: a pattern matches nothing, or a name is not the name of a group.
        DataError: a sample cannot be loaded, or a tensor holds NaN or infinity.
        InputError: the file does not fit; or, for a strict recipe, a tensor has no range.
    """
    started = time.monotonic()
    idle = check_floats(artifact.model, artifact.request)
    if idle:
        summary = f"--float takes nothing out of INT8 for {', '.join(map(repr, idle))}"
        artifact = artifact.having(Record("float", summary, {"idle_patterns": idle}))
    if recipe.calibration is not None:
        artifact = _with_earlier_ranges(artifact, plan, recipe)
    else:
        artifact = _calibrated(artifact, plan, recipe, progress)
    artifact = _with_cache_told(artifact, recipe)
    say_without_range(artifact, is_strict=recipe.strict)
    start = Candidate(_with_given(artifact))
    if plan.calibration is None or not recipe.chooses_ranges:
        return start
    seconds = seconds_for(recipe.effort, time.monotonic() - started)
    deadline = Deadline.after(seconds, WorkClock())
    images = CalibrationImages(plan.calibration, recipe.effort)
    artifact = choose_ranges(artifact, images, deadline=deadline, progress=progress)
    labelled = has_labels(plan.verification)
    task = task_kind(recipe.task, artifact.source, has_labels=labelled)
    return improve(
        Candidate(_with_given(artifact)),
        recalibration(plan.calibration, recipe),
        images,
        room=FloatRoom(
            percent=0.0 if task == "classify" else _float_percent(recipe),
            when_near=task in _ON_FEW_VALUES,
        ),
        deadline=deadline,
        progress=progress,
    )


def recalibration(
    source: Source, recipe: EngineRecipe, progress: Progress = silent
) -> Recalibration:
    """Return how a search calibrates a changed network."""
    return Recalibration(source, recipe.calibrate_options, progress)


def _float_percent(recipe: EngineRecipe) -> float:
    """The share of the work that may stay in float without a limit; with a limit, the search decides it.

    0 if TensorRT chooses what runs in INT8: it would not follow our choice.
    """
    if recipe.tune is None or recipe.gate.limits or _tensorrt_picks(recipe):
        return 0.0
    percent = recipe.tune.max_float_percent
    return FLOAT_PERCENT if percent is None else percent


def _tensorrt_picks(recipe: EngineRecipe) -> bool:
    """Whether a calibrator of TensorRT 10 builds the engine, which chooses each layer's precision itself."""
    backend, _ = chosen_backends(recipe)[0]
    return backend.name == TENSORRT.backend and is_implicit(installed(TENSORRT), recipe.tensorrt)


def with_portable_choice(
    artifact: Artifact, plan: DataPlan, recipe: EngineRecipe, progress: Progress
) -> Artifact:
    """Choose what ONNX Runtime's form rounds, if moves were tried; return the quantized artifact."""
    if plan.calibration is None or not (recipe.chooses_ranges and were_tried(artifact)):
        return artifact
    if REFERENCE_BACKEND not in [backend.name for backend, _ in chosen_backends(recipe)]:
        return artifact
    return choose_portable(artifact, plan.calibration, recipe.effort, progress)


def _with_given(artifact: Artifact) -> Artifact:
    return replace(artifact, given_calibration=artifact.calibration)


def _with_cache_told(artifact: Artifact, recipe: EngineRecipe) -> Artifact:
    """Record how many of the tensors that INT8 needs have a scale in the recipe's calibration cache."""
    path, calibration = recipe.tensorrt.cache, artifact.calibration
    if path is None or calibration is None:
        return artifact
    scales = read_cache(path).scales
    found = sum(name in scales for name in calibration.amaxes)
    total = len(calibration.amaxes)
    summary = f"'{path.name}' has scales for {found} of {counted(total, 'tensor')}"
    details = {"file": path.name, "num_found": found, "num_tensors": total}
    return artifact.having(Record("cache", summary, details))


def _calibrated(
    artifact: Artifact, plan: DataPlan, recipe: EngineRecipe, progress: Progress
) -> Artifact:
    assert plan.calibration is not None
    tensors = observed_tensors(artifact, recipe)
    if recipe.fp16:
        # to find out whether they fit into FP16
        hidden = reaches_minus_infinity(artifact.model)
        tensors = tuple(sorted({*tensors, *(float_activations(artifact.model) - hidden)}))
    options = recipe.calibrate_options
    if not any(label is not None for label in plan.calibration.index.labels):
        return calibrate(artifact, plan.calibration, tensors, options, progress)
    answers = FloatAnswers([value.name or "" for value in artifact.model.graph.outputs])
    artifact = calibrate(artifact, plan.calibration, tensors, options, progress, answers)
    return _with_answers(artifact, answers.check)


def _with_answers(artifact: Artifact, check: LabelCheck) -> Artifact:
    """Record how often the float network is right on the calibration samples.

    Raises:
        DataError: no more often than by chance.
    """
    check.raise_at_chance()
    right = check.right_percent
    if right is None:
        return artifact
    summary = (
        f"the float network is right on {right.value:.1f} % ({right.low:.1f} to {right.high:.1f}) of "
        f"{counted(check.num_samples, 'labelled calibration sample')}"
    )
    details = {"num_samples": check.num_samples, "top1_percent": encode(right)}
    return artifact.having(Record("float accuracy", summary, details))


def observed_tensors(artifact: Artifact, recipe: EngineRecipe) -> tuple[str, ...]:
    """Return the tensors whose ranges INT8 needs.

    Raises:
        ModelError: there is none.
        OptionError: a pattern matches nothing, or a name is not the name of a group.
    """
    tensors = watched_tensors(artifact.model, artifact.request)
    if not tensors:
        instead = " Leave out --int8 to build it in FP16 alone." if recipe.fp16 else ""
        raise ModelError(
            f"nothing of '{recipe.model}' would run in INT8: {_why_none(artifact)}.{instead}"
        )
    return tensors


def _why_none(artifact: Artifact) -> str:
    """The first layer that could have been INT8, and why it is not."""
    for decision in place(artifact.model, artifact.request).decisions:
        if decision.op_type in WEIGHTED | RECURRENT:
            return f"'{decision.node}' stays float: {decision.reason}"
    holder = next((node for node in artifact.model.graph if _holds_layers(node)), None)
    if holder is not None:
        where = f"the body of {holder.op_type} '{label(holder)}'"
        return f"its layers with weights lie in {where}, and bodies stay float"
    return f"it has no {', '.join(sorted(WEIGHTED))} with a constant weight"


def _holds_layers(node: ir.Node) -> bool:
    inner = (one for body in bodies(node) for one in all_nodes(body))
    return any(one.op_type in WEIGHTED | RECURRENT for one in inner)


def _with_earlier_ranges(artifact: Artifact, plan: DataPlan, recipe: EngineRecipe) -> Artifact:
    """Take the ranges of a file; if weights, preprocessing or data have changed, spot-check them."""
    assert recipe.calibration is not None
    calibration = load_calibration(recipe.calibration, artifact.source)
    here = plan.verification.index.digest
    changed = changes_since(calibration, artifact.source, recipe.data.preprocess_text, here)
    artifact = artifact.with_calibration(calibration)
    if not changed:
        return artifact
    drift = spot_check(calibration, artifact.model, plan.verification)
    record = Record(
        "spot check",
        f"{_said(changed)}; {drift}",
        {"changed": list(changed), "num_samples": drift.num_samples, "ratios": dict(drift.ratios)},
    )
    return artifact.having(record)


def _said(changed: Sequence[str]) -> str:
    """The result of `changes_since` in words."""
    altered = [one for one in changed if one != "data"]
    said = [f"{' and '.join(altered)} changed since the calibration"] if altered else []
    if "data" in changed:
        said.append("the data differ from those of the calibration")
    return ", and ".join(said)
