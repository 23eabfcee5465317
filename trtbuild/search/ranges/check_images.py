"""Calibration images that choose, and others that check the choice: drawn by content, without overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.data import choose_samples, filled, load_feeds, without
from trtbuild.gradients import differentiable_outputs
from trtbuild.model import static_batch
from trtbuild.model.edits import tapped, tapped_here
from trtbuild.options.effort import Effort
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.measured import Measure, parts_of
from trtbuild.search.ranges.work import far_work_for, image_cost, values_of_a_sample, work_for
from trtbuild.search.together import gain_together, outputs_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import Sample, Source
    from trtbuild.runtime.session import Feeds

__all__ = ["CalibrationImages", "CheckImages", "Images"]

# Most bytes of all activations of images that are run together; a run holds only some of them at a time.
_ROOM = 1 << 27
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Images:
    """Images that choose, images that check, and the number of random directions per image.

    For one network, an image that checks in one draw never chooses in another. With a single image both
    are empty.
    """

    choosing: Sequence[Feeds]
    checking: Sequence[Feeds]
    num_directions: int


class CalibrationImages:
    """Images drawn from the calibration data by content; each is loaded once and run in float once.

    Args:
        source: calibration images.
        effort: decides how many images are drawn.
    """

    def __init__(self, source: Source, effort: Effort = Effort.NORMAL) -> None:
        self.source, self.effort = source, effort
        self._samples: dict[int, list[Sample]] = {}
        self._loaded: dict[tuple[bytes, int], Feeds] = {}
        self._measured: dict[ir.Model, tuple[str, ...]] = {}
        self._outputs: dict[Hashable, Sequence[Mapping[str, np.ndarray]]] = {}

    def draw(self, artifact: Artifact, *, for_moves: bool = False) -> Images:
        """Return images for a network, their number depending on its cost and the effort.

        Args:
            artifact: a calibrated artifact.
            for_moves: return enough images to judge moves; they include those that choose ranges.

        Raises:
            DataError: a sample does not load.
        """
        size = (image_cost(artifact), len(self.source.index))
        most = far_work_for(self.effort, *size)
        work = most if for_moves else work_for(self.effort, *size)
        count = min(most.num_choosing + most.num_checking, len(self.source.index.counts))
        if count < 2:
            return Images([], [], 0)
        num_checking = min(most.num_checking, max(count // 2, count - most.num_choosing))
        chosen = self._first(count)
        return Images(
            self._feeds(artifact, chosen[num_checking:][: work.num_choosing]),
            self._feeds(artifact, chosen[:num_checking][: work.num_checking]),
            work.num_directions,
        )

    def draw_unasked(self, artifact: Artifact) -> list[Feeds]:
        """Return further images that no `draw` returns, at most as many as check moves.

        Raises:
            DataError: a sample does not load.
        """
        most = far_work_for(self.effort, image_cost(artifact), len(self.source.index))
        asked = most.num_choosing + most.num_checking
        count = min(asked + most.num_checking, len(self.source.index.counts))
        if count <= asked:
            return []
        drawn, others = (choose_samples(self.source, num_images=n, seed=0) for n in (count, asked))
        return self._feeds(artifact, sorted(without(drawn, others), key=_by_key))

    def _first(self, count: int) -> list[Sample]:
        """The first `count` samples of the choice by content, sorted by key."""
        if count not in self._samples:
            chosen = choose_samples(self.source, num_images=count, seed=0)
            self._samples[count] = sorted(chosen, key=_by_key)
        return self._samples[count]

    def _feeds(self, artifact: Artifact, samples: Iterable[Sample]) -> list[Feeds]:
        batch = static_batch(artifact.source) or 1
        return [self._load(one, batch) for one in samples]

    def _load(self, sample: Sample, batch: int) -> Feeds:
        key = (sample.key, batch)
        if key not in self._loaded:
            self._loaded[key] = filled(load_feeds(sample), batch, sample.axes)
        return self._loaded[key]

    def measured(self, model: ir.Model) -> tuple[str, ...]:
        """Return the names of the tensors of a float network to measure; see `differentiable_outputs`."""
        if model not in self._measured:
            self._measured[model] = differentiable_outputs(model)
        return self._measured[model]

    def outputs(
        self, model: ir.Model, tensors: Sequence[str], images: Sequence[Feeds]
    ) -> Sequence[Mapping[str, np.ndarray]]:
        """Return the outputs of a float network for each of some images drawn here; kept for later calls.

        Args:
            model: the network, which must not change any more.
            tensors: names of the tensors to return.
            images: images that this object returned.

        Raises:
            ExecutionError: it cannot be opened or run.
        """
        key = self._key(model, tensors, images)
        if key not in self._outputs:
            session = open_session(tapped(model, tensors), Execution.FLOAT)
            try:
                self._outputs[key] = outputs_of(model, session.run, images, tensors)
            finally:
                session.close()
        return self._outputs[key]

    def run_ahead(self, artifact: Artifact, drawn: Images) -> None:
        """Run the float network on all images of a draw at once, if weights cost most and memory suffices.

        Raises:
            ExecutionError: it cannot be opened or run.
        """
        parts, model = (drawn.checking, drawn.choosing), artifact.model
        count = sum(map(len, parts))
        is_small = _FLOAT_BYTES * values_of_a_sample(artifact) * count <= _ROOM
        measured = self.measured(model)
        if min(map(len, parts)) < 2 or not is_small or not gain_together(model, measured):
            return
        found = self.outputs(model, measured, [*drawn.checking, *drawn.choosing])
        self._outputs[self._key(model, measured, drawn.checking)] = found[: len(drawn.checking)]
        self._outputs[self._key(model, measured, drawn.choosing)] = found[len(drawn.checking) :]

    @staticmethod
    def _key(model: ir.Model, tensors: Sequence[str], images: Sequence[Feeds]) -> Hashable:
        return model, tuple(tensors), tuple(map(id, images))

    def to_check(
        self, artifact: Artifact, *, for_moves: bool = False, reference: ir.Model | None = None
    ) -> CheckImages | None:
        """Return the check images; None if there is nothing to measure.

        Args:
            artifact: a calibrated artifact.
            for_moves: see `draw`.
            reference: the float network to compare with, if the artifact's own was changed; if a measured
                tensor is missing in it, there is nothing to measure.

        Raises:
            DataError: a sample does not load.
        """
        images = self.draw(artifact, for_moves=for_moves)
        measured = self.measured(artifact.model)
        if not images.checking or not measured:
            return None
        outputs = self.outputs(reference or artifact.model, measured, images.checking)
        if not outputs[0].keys() >= set(measured):
            return None
        measure = Measure.of(outputs, parts_of(artifact.model, measured))
        return CheckImages(images.checking, images.choosing, measured, measure)


def _by_key(sample: Sample) -> bytes:
    return bytes(sample.key)


@dataclass(frozen=True)
class CheckImages:
    """Calibration images that decide whether a choice, made on other images, is kept.

    Attributes:
        feeds: the check images.
        others: the images that choose.
        measured: names of the tensors that are measured.
        measure: the error measure from the float network's outputs on the check images.
    """

    feeds: Sequence[Feeds]
    others: Sequence[Feeds]
    measured: tuple[str, ...]
    measure: Measure

    def with_unasked(self, artifact: Artifact, images: CalibrationImages) -> CheckImages:
        """Return the check images, and further images not used before (`draw_unasked`).

        Args:
            artifact: the artifact that the check images were drawn for.
            images: the images that they were drawn from.

        Raises:
            DataError: a sample does not load.
        """
        unasked = images.draw_unasked(artifact)
        if not unasked:
            return self
        outputs = (
            *self.measure.outputs,
            *images.outputs(artifact.model, self.measured, unasked),
        )
        measure = Measure.of(outputs, parts_of(artifact.model, self.measured))
        return replace(self, feeds=[*self.feeds, *unasked], measure=measure)

    def errors(self, model: ir.Model) -> np.ndarray:
        """Return the errors of another network's outputs ``[images, parts]``, Q/DQ computed as written.

        Args:
            model: the network, changed during the call, so nothing else may read it meanwhile.

        Raises:
            ExecutionError: it cannot be opened or run.
        """
        with tapped_here(model, self.measured):  # changed in place, as a copy takes longer
            session = open_session(model, Execution.FLOAT)
        try:
            return self.measure.errors(outputs_of(model, session.run, self.feeds, self.measured))
        finally:
            session.close()
