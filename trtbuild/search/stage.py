"""The search stage: quantizes an artifact with ranges so that it meets a budget."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.data import batches, choose_samples, full_batches
from trtbuild.errors import OptionError
from trtbuild.model import static_batch
from trtbuild.model.parts import output_parts
from trtbuild.options.compare import ComparisonOptions
from trtbuild.options.tune import LIMIT_FLOAT_PERCENT, TuneOptions
from trtbuild.progress import Progress, silent
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.search.budget import Judges, Tuned, tune
from trtbuild.search.deadline import NEVER, Deadline
from trtbuild.search.evaluate import Evaluator
from trtbuild.search.float_costs import UNTIMED, LayerTiming
from trtbuild.search.identity import identity
from trtbuild.search.mixing import mixed_output
from trtbuild.search.steps import Material

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact
    from trtbuild.data import Batch, Source
    from trtbuild.runtime.session import Session
    from trtbuild.search.candidate import Candidate
    from trtbuild.search.recalibration import Recalibration
    from trtbuild.verification.gate import Gate
    from trtbuild.verification.tasks.base import TaskFactory

__all__ = ["meet_budget"]

_log = logging.getLogger(__name__)


def meet_budget(
    start: Candidate,
    recalibrate: Recalibration,
    gate: Gate,
    *,
    task: TaskFactory | None = None,
    options: TuneOptions | None = None,
    timing: LayerTiming | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Search, on calibration images alone, how to quantize a network so that it meets `gate`.

    Args:
        start: a calibrated candidate with histograms; its groups in float always stay in float.
        recalibrate: finds the ranges when the network changes; its images are the search samples.
        gate: the budget.
        task: makes the judge of the network's task.
        options: limits of the search.
        timing: how the backend times layers, to find a group's cost in float; None for costs by
            multiply-accumulates.
        progress: told of every step.

    Raises:
        OptionError: there is no limit, or one that the images cannot judge.
        DataError: a sample does not load.
    """
    if not gate.limits:
        raise OptionError("a search needs a budget, for example --max-top1-drop 0.5.")
    options, artifact = options or TuneOptions(), start.artifact
    if options.directory is not None and identity(task) is None:
        _log.warning(
            "--search-cache keeps nothing: another process cannot tell this judge from others. Name a "
            "function or class of a file, as script.py:name."
        )
    reference = open_session(artifact.float_reference)
    data = _batches(artifact, reference, recalibrate.source, options.num_images)
    material = Material(
        feeds=[batch.feeds for batch in _first(data, options.num_mean_images)],
        calibrate=recalibrate,
        num_tensors=options.num_tensors,
        max_float_percent=LIMIT_FLOAT_PERCENT
        if options.max_float_percent is None
        else options.max_float_percent,
        timing=timing or UNTIMED,
    )
    few = _first(data, options.num_ranking_images)
    judges = Judges(
        gate,
        _evaluator(artifact, reference, data, task, options),
        _evaluator(artifact, reference, few, task, options, recalibrate.options.ray),
    )
    reference.close()  # judges keep its answers
    deadline = NEVER if options.max_seconds is None else Deadline.after(options.max_seconds)
    return tune(start, judges, material, progress, deadline=deadline)


def _evaluator(
    artifact: Artifact,
    reference: Session,
    images: list[Batch],
    task: TaskFactory | None,
    options: TuneOptions,
    ray: str | None = None,
) -> Evaluator:
    """The evaluator that compares candidates with the float reference on `images`."""
    return Evaluator(
        reference,
        images,
        ComparisonOptions(num_worst=0, make_task=task),
        directory=options.directory,
        parts=output_parts(artifact.source),
        ray=ray,
    )


def _batches(artifact: Artifact, reference: Session, source: Source, count: int) -> list[Batch]:
    """The images that judge; one by one, as in calibration, if the network mixes those of a batch."""
    num_distinct = len(source.index.counts)
    chosen = choose_samples(source, num_images=min(count, num_distinct), seed=0)
    fixed = static_batch(artifact.source)
    found = list(full_batches(chosen, fixed) if fixed else batches(chosen, 16))
    if not fixed and mixed_output(artifact.source, reference, found[0]) is not None:
        found = [one for batch in found for one in batch.samples()]
    if all(batch.labels is not None for batch in found):
        return found
    return [replace(batch, labels=None) for batch in found]


def _first(data: list[Batch], num_images: int) -> list[Batch]:
    kept, count = [], 0
    for batch in data:
        if count >= num_images:
            break
        kept.append(batch)
        count += len(batch.names)
    return kept
