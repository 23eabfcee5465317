"""Calibration images that choose, and others that check what was chosen: drawn by content, never the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.data import choose_samples, filled, load_feeds, without
from trtbuild.gradients import differentiable_outputs
from trtbuild.model import static_batch
from trtbuild.model.edits import tapped, tapped_here
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.measured import Measure, parts_of
from trtbuild.search.ranges.work import far_work_for, image_cost, work_for
from trtbuild.search.together import outputs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import onnx_ir as ir

    from trtbuild.artifact import Artifact
    from trtbuild.data import Sample, Source
    from trtbuild.options.effort import Effort
    from trtbuild.runtime.session import Feeds

__all__ = ["CheckImages", "Images", "draw_images", "draw_unasked"]


@dataclass(frozen=True)
class Images:
    """Images that choose, others that check, and random directions an image.

    Whatever a network turns out to be, what checks is never among what chooses. With one image none checks.
    """

    choosing: Sequence[Feeds]
    checking: Sequence[Feeds]
    num_directions: int


def draw_images(
    artifact: Artifact, source: Source, effort: Effort, *, for_moves: bool = False
) -> Images:
    """Return images drawn by content: as many as this network and `effort` are worth, checking first.

    Args:
        artifact: calibrated.
        source: calibration images.
        effort: how much is tried.
        for_moves: as many as tell which move is good; those that choose among ranges are among them.

    Raises:
        DataError: a sample does not load.
    """
    size = (image_cost(artifact), len(source.index))
    most = far_work_for(effort, *size)
    work = most if for_moves else work_for(effort, *size)
    count = min(most.num_choosing + most.num_checking, len(source.index.counts))
    if count < 2:
        return Images([], [], 0)
    num_checking = min(most.num_checking, max(count // 2, count - most.num_choosing))
    chosen = sorted(choose_samples(source, num_images=count, seed=0), key=_by_key)
    return Images(
        _loaded(artifact, chosen[num_checking:][: work.num_choosing]),
        _loaded(artifact, chosen[:num_checking][: work.num_checking]),
        work.num_directions,
    )


def draw_unasked(artifact: Artifact, source: Source, effort: Effort) -> list[Feeds]:
    """Return images that neither choose nor check anything of `draw_images`, as many as check moves at most.

    Raises:
        DataError: a sample does not load.
    """
    most = far_work_for(effort, image_cost(artifact), len(source.index))
    asked = most.num_choosing + most.num_checking
    count = min(asked + most.num_checking, len(source.index.counts))
    if count <= asked:
        return []
    drawn, others = (choose_samples(source, num_images=n, seed=0) for n in (count, asked))
    return _loaded(artifact, sorted(without(drawn, others), key=_by_key))


def _loaded(artifact: Artifact, samples: Iterable[Sample]) -> list[Feeds]:
    batch = static_batch(artifact.source) or 1
    return [filled(load_feeds(one), batch, one.axes) for one in samples]


def _by_key(sample: Sample) -> bytes:
    return bytes(sample.key)


@dataclass(frozen=True)
class CheckImages:
    """Calibration images that choose nothing but what is kept of things chosen on others.

    Attributes:
        feeds: the check images.
        others: the images that choose.
        measured: names of the tensors that are measured.
        measure: by the float network's outputs on the check images.
    """

    feeds: Sequence[Feeds]
    others: Sequence[Feeds]
    measured: tuple[str, ...]
    measure: Measure

    @classmethod
    def of(
        cls,
        artifact: Artifact,
        source: Source,
        effort: Effort,
        *,
        for_moves: bool = False,
        reference: ir.Model | None = None,
    ) -> CheckImages | None:
        """Return the same check images that `choose_ranges` takes; None where there is nothing to measure.

        Args:
            artifact: calibrated.
            source: calibration images.
            effort: how much is tried.
            for_moves: see `draw_images`.
            reference: the float network, where that of the artifact was changed; where it lacks a tensor that
                is measured there, there is nothing to measure.

        Raises:
            DataError: a sample does not load.
        """
        images = draw_images(artifact, source, effort, for_moves=for_moves)
        others, feeds = images.choosing, images.checking
        measured = differentiable_outputs(artifact.model)
        if not feeds or not measured:
            return None
        session = open_session(tapped(reference or artifact.model, measured), Execution.FLOAT)
        outputs = outputs_of(artifact.model, session.run, feeds)
        if not outputs[0].keys() >= set(measured):
            return None
        measure = Measure.of(outputs, parts_of(artifact.model, measured))
        return cls(feeds, others, measured, measure)

    def with_unasked(self, artifact: Artifact, source: Source, effort: Effort) -> CheckImages:
        """Return the check images, and those that nothing was asked yet (`draw_unasked`).

        Args:
            artifact: the one that the check images were drawn for.
            source: calibration images.
            effort: how much is tried.

        Raises:
            DataError: a sample does not load.
        """
        unasked = draw_unasked(artifact, source, effort)
        if not unasked:
            return self
        session = open_session(tapped(artifact.model, self.measured), Execution.FLOAT)
        outputs = (*self.measure.outputs, *outputs_of(artifact.model, session.run, unasked))
        measure = Measure.of(outputs, parts_of(artifact.model, self.measured))
        return replace(self, feeds=[*self.feeds, *unasked], measure=measure)

    def errors(self, model: ir.Model) -> np.ndarray:
        """Return the errors of another network's outputs ``[images, parts]``, Q/DQ computed as written.

        Args:
            model: nobody else reads it meanwhile.

        Raises:
            ExecutionError: it cannot be opened or run.
        """
        with tapped_here(model, self.measured):  # made to be measured: a copy would take longer
            session = open_session(model, Execution.FLOAT)
        try:
            return self.measure.errors(outputs_of(model, session.run, self.feeds))
        finally:
            session.close()
