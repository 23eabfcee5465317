"""Compares a built engine and its forms with the float network, after checks that both can be judged."""

from __future__ import annotations

import itertools
import logging
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from trtbuild.data import batches, full_batches
from trtbuild.data.running import run_batch
from trtbuild.errors import DataError, OptionError
from trtbuild.jobs.module_stages import stage_sessions
from trtbuild.model import fixed_batch, input_specs, static_batch
from trtbuild.model.class_names import class_names
from trtbuild.model.parts import output_parts
from trtbuild.progress import Progress, silent
from trtbuild.quantization import portable_form
from trtbuild.quantization.half import magnitudes, to_half
from trtbuild.quantization.half_rounding import as_rounding_floats
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.mixing import mixed_output
from trtbuild.titles import PORTABLE, TENSORRT_FORM
from trtbuild.verification.album import Album
from trtbuild.verification.compare import compare, compare_each
from trtbuild.verification.gate import check_measured
from trtbuild.verification.label_check import LabelCheck
from trtbuild.verification.tasks.choose import choose_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import Batch, Sample, Source
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.compare import ComparisonOptions, TaskOptions
    from trtbuild.options.preprocess import Preprocess
    from trtbuild.recipes import EngineRecipe
    from trtbuild.runtime.session import Session
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.gate import Gate
    from trtbuild.verification.tasks.base import TaskFactory

__all__ = [
    "check_float_outputs",
    "check_task",
    "compare_with_float",
    "forms_beside",
    "has_labels",
    "judged_by",
    "task_of",
    "verification_batches",
    "warn_of_mixing",
]

_log = logging.getLogger(__name__)

# Latency is measured on this many batches in turn; single samples if the network's batch is dynamic.
_LATENCY_BATCHES = 8

# Enough samples to tell whether the network knows the labels.
_LABELLED_SAMPLES = 256


def verification_batches(
    inputs: Sequence[TensorSpec],
    source: Iterable[Sample],
    batch_size: int,
    progress: Progress = silent,
) -> Iterator[Batch]:
    """Return batches of `batch_size`, or of the network's fixed size; `progress` gets the sample count."""
    fixed = fixed_batch(inputs)
    size = fixed or batch_size
    found = full_batches(source, size) if fixed and fixed > 1 else batches(source, size)
    done = 0
    for batch in found:
        yield batch
        done += len(batch.names)
        progress("verify", done, None)


def warn_of_mixing(model: ir.Model, session: Session, batch: Batch) -> None:
    """Warn if what the float network gives for a sample depends on the other samples of its batch."""
    output, fixed = mixed_output(model, session, batch), static_batch(model)
    if output is None:
        return
    advice = (
        "Calibration runs each sample alone, so ranges may not fit, and no figure holds for another batch "
        "size: judge samples alone (--batch-size 1), or export the network so that they are independent."
        if fixed is None
        else f"Calibration fills the batch of {fixed} with copies of one sample, so ranges may not fit: "
        "export the network with a batch of 1, or so that samples are independent."
    )
    _log.warning(
        "the network mixes the samples of a batch: '%s' of a sample depends on the samples beside it. %s",
        output,
        advice,
    )


# Limits that cannot be judged for every network: only the outputs of the float network show it.
_BY_OUTPUTS = frozenset(
    {"min_agreement", "min_top1_agreement", "min_topk_agreement", "max_top1_drop"}
)


def check_float_outputs(
    model: ir.Model,
    source: Source,
    recipe: EngineRecipe,
    options: ComparisonOptions,
    progress: Progress = silent,
) -> None:
    """Run the float network on some samples of `source`, to find errors before hours of work.

    Nothing is run if no sample has a label, no task is named, and no limit depends on the kind of outputs.

    Args:
        model: the float network.
        source: the samples that verify.
        recipe: has the limits, the batch size, and whether the user named a task.
        options: what will be measured, with the task's judge.
        progress: called after every batch.

    Raises:
        OptionError: its outputs do not fit the task, or do not give a figure that has a limit.
        DataError: it is right no more often than by chance, or only a part of the samples has a label.
    """
    labelled = sum(label is not None for label in source.index.labels)
    if 0 < labelled < len(source.index):
        raise DataError(
            f"{labelled} of the {len(source.index)} samples that verify have a label, and the others have "
            "none: give all of them one, or leave the labels out."
        )
    has_classes = labelled > 0
    is_asked = recipe.task.is_named or not _BY_OUTPUTS.isdisjoint(recipe.gate.limits)
    if not has_classes and not is_asked:
        return
    float_network = open_session(model)
    if is_asked:
        few = verification_batches(input_specs(model), source, recipe.batch_size)
        found = compare(float_network, float_network, itertools.islice(few, 1), options)
        check_measured(found, recipe.gate)
    if has_classes:
        _check_labels(model, float_network, source, recipe.batch_size, progress)


def _check_labels(
    model: ir.Model, float_network: Session, source: Source, batch_size: int, progress: Progress
) -> None:
    check, count = LabelCheck(), 0
    for batch in verification_batches(input_specs(model), source, batch_size):
        check.add(run_batch(float_network, batch), batch.labels)
        count += len(batch.names)
        progress("labels", count, None)
        if count >= _LABELLED_SAMPLES:
            break
    check.raise_at_chance()


def task_of(
    model: ir.Model | None,
    source: Source,
    options: TaskOptions,
    preprocess: Preprocess | None = None,
) -> TaskFactory | None:
    """Return the factory of the task's judge; None if neither the user nor the network says the task.

    Raises:
        OptionError: see `trtbuild.verification.tasks.choose.choose_task`.
    """
    return choose_task(options, model, has_labels=has_labels(source), preprocess=preprocess)


def has_labels(source: Source) -> bool:
    """Return whether every sample of `source` has a class."""
    labels = source.index.labels
    return bool(labels) and all(label is not None for label in labels)


def check_task(gate: Gate, task: TaskFactory | None) -> None:
    """Check that there is no limit on the figure of a task that is not measured.

    Raises:
        OptionError: there is one.
    """
    if gate.min_agreement is not None and task is None:
        raise OptionError(
            "--min-agreement needs to know what the network is for, but its outputs do not tell: give "
            "--task, or your own --judge."
        )


def judged_by(
    options: ComparisonOptions,
    graph: ir.Model | None,
    task: TaskFactory | None,
    preprocess: Preprocess | None,
) -> ComparisonOptions:
    """Add the task's judge, and an album with pictures of its worst samples, to comparison options.

    Args:
        options: the other options.
        graph: the network; its class names caption the pictures.
        task: factory of the task's judge; None to measure none.
        preprocess: how images became inputs.
    """
    names = {} if graph is None else class_names(graph)
    return replace(options, make_task=task, make_album=partial(Album, preprocess, names))


def compare_with_float(
    artifact: Artifact,
    reference: Session,
    candidates: Mapping[str, Session],
    data: Iterable[Batch],
    options: ComparisonOptions,
) -> tuple[dict[str, Comparison], tuple[Batch, ...]]:
    """Compare the candidates with the float network.

    Args:
        artifact: the network.
        reference: the float network, opened.
        candidates: the others, by name (`trtbuild.result`); see `forms_beside`.
        data: the batches.
        options: what to measure.

    Returns:
        Name -> figures against the float network; and the first few batches, for a closer look without
        another pass over the data.
    """
    splits = fixed_batch(input_specs(artifact.source)) is None
    few: list[Batch] = []

    def kept() -> Iterator[Batch]:
        for number, batch in enumerate(data):
            if number == 0:
                warn_of_mixing(artifact.source, reference, batch)
            if len(few) < _LATENCY_BATCHES:
                few.extend(batch.samples() if splits else [batch])
            yield batch

    comparisons = compare_each(
        reference,
        candidates,
        kept(),
        options,
        parts=output_parts(artifact.source),
        shared_only=artifact.cut is not None,
    )
    return comparisons, tuple(few[:_LATENCY_BATCHES])


@contextmanager
def forms_beside(
    artifact: Artifact, engines: Mapping[str, Session], *, fp16: bool = False
) -> Iterator[dict[str, Session]]:
    """Yield what is compared with the float network, by name: TensorRT's form if there is one, and engines.

    For a network from a module, the stages before are included (`trtbuild.jobs.module_stages`). If no engine
    runs here, ONNX Runtime's form is used instead; for a network that is not quantized, the network as
    TensorRT gets it in FP16. In FP16, every result is rounded; see `as_rounding_floats`.

    Args:
        artifact: the network, with its Q/DQ form if it has one.
        engines: engines that can be opened here, by name (`trtbuild.result`); they stay open. Other sessions
            are closed at the end of the block, before any timing, because they take as much memory.
        fp16: whether layers that are not INT8 run in FP16 in TensorRT's form.
    """
    candidates: dict[str, Session] = stage_sessions(artifact)
    if artifact.quantized is not None:
        form = artifact.quantized
        if fp16:
            form = as_rounding_floats(to_half(form, magnitudes(artifact.calibration))[0])
        candidates[TENSORRT_FORM] = open_session(form, Execution.REFERENCE)
    candidates |= {n: one for n, one in engines.items() if _can_be_compared(artifact, one)}
    if not engines and artifact.quantized is not None:
        candidates[PORTABLE] = open_session(portable_form(artifact))
    elif not engines:
        half = as_rounding_floats(to_half(artifact.model, {})[0])
        candidates[TENSORRT_FORM] = open_session(half, Execution.REFERENCE)
    try:
        yield candidates
    finally:
        for name, session in candidates.items():
            if name not in engines:
                session.close()


def _can_be_compared(artifact: Artifact, engine: Session) -> bool:
    """Whether the engine shares an output with the float network's front part; warns if it does not."""
    if artifact.cut is None:
        return True
    ours = {value.name for value in artifact.source.graph.outputs}
    if ours & {spec.name for spec in engine.outputs}:
        return True
    _log.warning(
        "all outputs of the engine depend on %s, which ONNX Runtime cannot run: the engine itself is not "
        "compared, only TensorRT's form before it.",
        artifact.cut.named,
    )
    return False
