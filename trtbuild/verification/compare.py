"""Runs the float network and candidates on the same batches and measures them; judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from trtbuild.data.running import run_batch
from trtbuild.errors import DataError, OptionError
from trtbuild.json_codec import NOT_IN_JSON, Document
from trtbuild.options.compare import ComparisonOptions
from trtbuild.verification.batch import LabelledBatch
from trtbuild.verification.distance import Distance
from trtbuild.verification.matching import (
    check_feeds,
    check_same_interface,
    in_own_types,
    samples_first,
)
from trtbuild.verification.metrics import OutputComparison, OutputMetrics, class_scores
from trtbuild.verification.scores import (
    Accuracy,
    AccuracyCount,
    MetricAverage,
    MetricScore,
)
from trtbuild.verification.tasks.base import SampleScore, TaskScore  # noqa: TC001 - read by `decode`
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from trtbuild.model.parts import Part
    from trtbuild.runtime.session import Session
    from trtbuild.verification.album import Album
    from trtbuild.verification.label_check import LabelCheck
    from trtbuild.verification.tasks.base import Task

__all__ = ["Comparison", "ComparisonOptions", "LabelledBatch", "compare", "compare_each"]

NO_PARTS: Mapping[str, Sequence[Part]] = MappingProxyType({})


@dataclass(frozen=True)
class Comparison(Document):
    """How far a candidate is from the float network; `trtbuild.verification.gate` judges it.

    Attributes:
        candidate: name of what was compared.
        num_images: samples that were run.
        outputs: figures of each output.
        accuracy: top-1 of both against labels; None without them.
        metrics: the user's own.
        task: figures of the network's task; None where the task is not known.
        furthest: without a task, the samples that are furthest from float, with their pictures; not
            written to JSON.
    """

    SCHEMA = "trtbuild.comparison"

    candidate: str
    num_images: int
    outputs: tuple[OutputComparison, ...]
    accuracy: Accuracy | None = None
    metrics: tuple[MetricScore, ...] = ()
    task: TaskScore | None = None
    furthest: tuple[SampleScore, ...] = field(
        default=(), compare=False, repr=False, metadata=NOT_IN_JSON
    )

    @property
    def worst_sqnr_db(self) -> float | None:
        """SQNR of the worst part of any output; None if no output holds floating-point values."""
        judged = (output.judged_sqnr_db for output in self.outputs)
        return min((one.value for one in judged if one is not None), default=None)

    @property
    def top1_agreement_percent(self) -> float | None:
        """Samples of the same class, by the output with the fewest; None without class scores."""
        known = (output.top1_agreement_percent for output in self.outputs)
        return min((one.value for one in known if one is not None), default=None)

    def output(self, name: str) -> OutputComparison:
        """Return the figures of one output.

        Raises:
            KeyError: there is no such output.
        """
        return {output.name: output for output in self.outputs}[name]


def compare(
    reference: Session,
    candidate: Session,
    batches: Iterable[LabelledBatch],
    options: ComparisonOptions | None = None,
    *,
    parts: Mapping[str, Sequence[Part]] = NO_PARTS,
    shared_only: bool = False,
) -> Comparison:
    """Run both networks on every batch and measure each output.

    Args:
        reference: the float network.
        candidate: the network under test.
        batches: feeds, optional labels, and the images' names; read once.
        options: what to measure.
        parts: output -> its parts (`trtbuild.model.parts.output_parts`); an output without parts is
            measured as one.
        shared_only: skip outputs that only one of the two has, instead of raising.

    Raises:
        ModelError: inputs or outputs of the two do not match.
        DataError: a batch does not fit, labels are missing for some batches, or there is no batch.
        OptionError: an output in `options` is unknown, or a metric does not work.
    """
    found = compare_each(
        reference, {"candidate": candidate}, batches, options, parts=parts, shared_only=shared_only
    )
    return found["candidate"]


def compare_each(
    reference: Session,
    candidates: Mapping[str, Session],
    batches: Iterable[LabelledBatch],
    options: ComparisonOptions | None = None,
    *,
    parts: Mapping[str, Sequence[Part]] = NO_PARTS,
    shared_only: bool = False,
    check: LabelCheck | None = None,
) -> dict[str, Comparison]:
    """Do the same as `compare` for several candidates; the float network runs once for all of them.

    `check` gets the float network's outputs and the labels of every batch.
    """
    options = options or ComparisonOptions()
    # parts count axes as the graph does; here the batch axis is moved to the front
    moved = {spec.name for spec in reference.outputs if spec.batch_axis}
    parts = {name: found for name, found in parts.items() if name not in moved}
    running = {}
    for name, candidate in candidates.items():
        outputs = check_same_interface(reference, candidate, name, shared_only=shared_only)
        _check_outputs(outputs, options)
        running[name] = _Running(name, outputs, options, parts)
    candidates = {name: in_own_types(one, reference) for name, one in candidates.items()}
    num_images, labelled = 0, None
    for batch in batches:
        labelled = _check_batch(batch, reference, labelled)
        expected = samples_first(run_batch(reference, batch), reference.outputs)
        if check is not None:
            check.add(expected, batch.labels)
        for name, candidate in candidates.items():
            given = samples_first(run_batch(candidate, batch), reference.outputs)
            running[name].add(expected, given, batch)
        num_images += len(batch.names)
    if not num_images:
        raise DataError(
            "there are no samples to verify on. Give some with --data or --verify-data."
        )
    return {name: one.result() for name, one in running.items()}


def _check_outputs(known: Sequence[str], options: ComparisonOptions) -> None:
    wanted = (*(options.scores or ()), *([options.label_output] if options.label_output else []))
    for name in wanted:
        if name not in known:
            raise OptionError(f"there is no output '{name}'; the outputs are {', '.join(known)}.")


def _check_batch(batch: LabelledBatch, reference: Session, labelled: bool | None) -> bool:
    check_feeds(reference, batch.feeds, "the float network")
    has_labels = batch.labels is not None
    if labelled not in (None, has_labels):
        raise DataError("some batches have labels and others have none.")
    if batch.labels is not None and len(batch.labels) != len(batch.names):
        raise DataError(
            f"a batch has {counted(len(batch.labels), 'label')} for {counted(len(batch.names), 'sample')}."
        )
    return has_labels


class _Running:
    """The accumulators of one candidate."""

    def __init__(
        self,
        name: str,
        outputs: Sequence[str],
        options: ComparisonOptions,
        parts: Mapping[str, Sequence[Part]],
    ) -> None:
        self._name = name
        self._album: Album | None = options.make_album() if options.make_album else None
        self._options = options
        self._outputs = {
            output: OutputMetrics(
                output,
                options.top_k,
                options.num_worst,
                None if options.scores is None else output in options.scores,
                parts.get(output, ()),
            )
            for output in outputs
        }
        self._metrics = [MetricAverage(key, metric) for key, metric in options.metrics.items()]
        self._task: Task | None = options.make_task() if options.make_task is not None else None
        self._distance = Distance(options.num_worst)
        self._accuracy: AccuracyCount | None = None
        self._num_images = 0

    def add(
        self,
        expected: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
        batch: LabelledBatch,
    ) -> None:
        """Take in a batch: outputs of float (`expected`) and of the candidate (`found`)."""
        self._num_images += len(batch.names)
        for name, output in self._outputs.items():
            output.add(expected[name], found[name], batch.names)
        for metric in self._metrics:
            metric.add(expected, found, batch.labels, batch.names)
        if self._task is not None:
            self._task.add(batch, expected, found)
        elif self._album is not None:
            self._distance.add(batch, expected, found)
        if self._album is not None:
            self._album.add(self._task or self._distance, batch, expected, found)
        if batch.labels is not None:
            self._accuracy = self._accuracy or AccuracyCount(self._label_output(expected, batch))
            name = self._accuracy.output
            self._accuracy.add(expected[name], found[name], batch.labels)

    def _label_output(self, outputs: Mapping[str, np.ndarray], batch: LabelledBatch) -> str:
        if self._options.label_output is not None:
            return self._options.label_output
        candidates = self._options.scores or tuple(self._outputs)
        for name in candidates:
            if class_scores(outputs[name], len(batch.names)) is not None:
                return name
        raise DataError(
            "there are labels, but no output looks like class scores ([samples, classes])."
            " Leave the labels out, or give your own metric with --metric."
        )

    def _score(self) -> TaskScore | None:
        score = None if self._task is None else self._task.result()
        return score if score is None or self._album is None else self._album.shown(score)

    def result(self) -> Comparison:
        """Return the comparison over all batches."""
        return Comparison(
            candidate=self._name,
            num_images=self._num_images,
            outputs=tuple(output.result() for output in self._outputs.values()),
            accuracy=self._accuracy.result() if self._accuracy else None,
            metrics=tuple(metric.result() for metric in self._metrics),
            task=self._score(),
            furthest=() if self._album is None else self._album.viewed(self._distance.worst),
        )
