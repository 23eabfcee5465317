"""Improves the INT8 network by moves; each is kept only if it lowers the error on check images.

The ranges of `trtbuild.search.ranges.choose` come first. Then channels of different size are scaled, ranges
are chosen again for the changed network, and biases are corrected; a small share of the work may stay in
float, and finally all ranges are widened a little. A move is proposed on some calibration images and kept
only if the error of the outputs falls on other images, which did not choose it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbuild.artifact import Record
from trtbuild.errors import ModelError
from trtbuild.options.effort import Effort
from trtbuild.progress import Progress, silent
from trtbuild.search.deadline import NEVER, Deadline
from trtbuild.search.float_share import costly_groups
from trtbuild.search.measured import is_less
from trtbuild.search.ranges.choose import choose_ranges, error_when_chosen
from trtbuild.search.ranges.work import FAR, may_move
from trtbuild.search.steps import (
    Material,
    correct_biases,
    rescale_channels,
    round_anew,
    widen_ranges,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trtbuild.artifact import Artifact
    from trtbuild.search.candidate import Candidate
    from trtbuild.search.ranges.check_images import CalibrationImages, CheckImages
    from trtbuild.search.recalibration import Recalibration

__all__ = ["FloatRoom", "improve", "were_tried"]

_log = logging.getLogger(__name__)

_STAGE = "moves"
# A move that lowers the error by a smaller share may do so by chance.
_LEAST_GAIN = 0.03
# By how much the error of one part may grow, as a share.
_MOST_LOSS = 0.1
# An earlier error decides if it is further than this factor from `FAR`: a second measurement of the same
# network differs in the last bits only.
_CLEARLY = 1.1
# Share of the time that channel scaling and its ranges leave for later moves, which are faster and often
# better.
_LEFT_FOR_THE_LAST = 1 / 3
# Float costs run time, so it must gain a decibel, and most images must agree. Amplitudes decide: the sum of
# errors depends on one or two doubtful images, which also decided about the moves before.
_LEAST_FLOAT_GAIN = 0.2
_LEAST_AGREEING = 2 / 3


@dataclass(frozen=True)
class _Tried:
    """One proposal: the move, its description, its error on the check images, and whether it was kept."""

    move: str
    what: str
    error: float
    kept: bool


@dataclass(frozen=True)
class FloatRoom:
    """How much may stay in float; see `trtbuild.search.float_share`.

    Attributes:
        percent: the largest share of the work, in percent.
        when_near: whether float is allowed even if the error of the outputs is below `FAR`.
    """

    percent: float = 0.0
    when_near: bool = False


def improve(
    start: Candidate,
    recalibrate: Recalibration,
    images: CalibrationImages,
    *,
    room: FloatRoom = FloatRoom(),
    deadline: Deadline = NEVER,
    progress: Progress = silent,
) -> Candidate:
    """Return the candidate with the moves that bring its outputs nearer to float, and a record of them.

    Args:
        start: a candidate whose ranges are chosen.
        recalibrate: finds the ranges of a changed network.
        images: calibration images; with `Effort.FAST` nothing is tried.
        room: how much may stay in float.
        deadline: no proposal begins later, except bias correction. A third of the time is reserved for the
            moves after channel scaling, which calibrates the network repeatedly.
        progress: told of every proposal.

    Raises:
        DataError: a sample does not load.
        ModelError: the network cannot be run.
    """
    if images.effort is Effort.FAST:
        return start
    is_far = _is_far(start, images)
    if not is_far and not may_move(images.effort, start.artifact, len(images.source.index)):
        return start
    # for_moves: the few images that choose ranges are too few to judge a move
    checked = images.to_check(start.artifact, for_moves=True)
    if checked is None:
        return start
    search = _Search(start, images, checked, deadline, progress)
    early, material = search.early, Material(feeds=checked.others, calibrate=recalibrate)
    scaled = search.take("channel scaling", rescale_channels(search.best, material), early)
    if scaled or is_far:
        search.take("ranges chosen anew", search.chosen_anew(), early)
    # without a deadline: it takes only two runs of a few images
    search.take("bias correction", correct_biases(search.best, material), NEVER)
    if images.effort is Effort.HIGH:
        search.take("rounding of weights", round_anew(search.best, material), early)
    if room.percent > 0 and (room.when_near or search.is_far):
        proposal = search.with_float(room.percent)
        search.take("float", proposal, deadline, is_better=search.is_worth_its_time)
    search.take("wider ranges", widen_ranges(search.best, material), deadline)
    return search.result()


def _is_far(start: Candidate, images: CalibrationImages) -> bool:
    """Whether its outputs are far from float: by the error measured when its ranges were chosen, if clear."""
    seen = error_when_chosen(start.artifact)
    if seen is not None and not FAR / _CLEARLY < seen < FAR * _CLEARLY:
        return seen > FAR
    checked = images.to_check(start.artifact)
    return checked is not None and float(checked.errors(start.network()).sum()) > FAR


def were_tried(artifact: Artifact) -> bool:
    """Return whether moves were tried on an artifact."""
    return any(record.stage == _STAGE for record in artifact.history)


class _Search:
    """The best candidate so far."""

    def __init__(
        self,
        start: Candidate,
        drawn_from: CalibrationImages,
        images: CheckImages,
        deadline: Deadline,
        progress: Progress,
    ) -> None:
        self._candidate = start
        self._drawn_from = drawn_from
        self._images, self._deadline, self._progress = images, deadline, progress
        self.early = deadline.sooner(_LEFT_FOR_THE_LAST)
        self._before = self._errors = images.errors(start.network())
        self._tried: list[_Tried] = []
        self._start = start.artifact

    def best(self) -> Candidate:
        """The best candidate so far."""
        return self._candidate

    def take(
        self,
        move: str,
        proposals: Iterator[tuple[str, Candidate]],
        deadline: Deadline,
        *,
        is_better: Callable[[Candidate, np.ndarray], bool] | None = None,
    ) -> bool:
        """Keep each proposal of a move that is better than all before it; return whether one was kept.

        Args:
            move: its name.
            proposals: the candidates to try, with descriptions.
            deadline: no proposal begins later.
            is_better: decides by a candidate and its errors on the check images; None for `_is_better`.
        """
        before = self._candidate
        while not deadline.is_over:
            try:
                found = next(proposals, None)
            except ModelError as refused:  # a move that does not fit this network
                _log.info("%s: %s", move, refused)
                break
            if found is None:
                break
            what, candidate = found
            errors = self._images.errors(candidate.network())
            kept = (is_better or self._is_better)(candidate, errors)
            self._tried.append(_Tried(move, what, float(errors.sum()), kept))
            self._progress("moves", len(self._tried), None)
            if kept:
                self._candidate, self._errors = candidate, errors
        return self._candidate is not before

    def _is_better(self, _: Candidate, errors: np.ndarray) -> bool:
        """Whether a candidate's errors on the check images are less, without a larger error of one part."""
        own, before = errors.sum(axis=1), self._errors.sum(axis=1)
        return _spares(errors, self._errors) and is_less(own, before, _LEAST_GAIN)

    def chosen_anew(self) -> Iterator[tuple[str, Candidate]]:
        """Yield ranges chosen again: for the changed network, and on more images if it is far from float."""
        chosen = choose_ranges(
            self._candidate.artifact, self._drawn_from, deadline=self.early, progress=self._progress
        )
        yield chosen.history[-1].summary, replace(self._candidate, artifact=chosen)

    @property
    def is_far(self) -> bool:
        """Whether the best network is far from float."""
        return float(self._errors.sum()) > FAR

    def with_float(self, most_percent: float) -> Iterator[tuple[str, Candidate]]:
        """Yield groups in float whose rounding costs the outputs most for their share of the work."""
        found = costly_groups(self._candidate, self._images.others, most_percent)
        if found.groups:
            yield str(found), self._candidate.with_float(found.groups, f"kept in float: {found}")

    def is_worth_its_time(self, candidate: Candidate, _: np.ndarray) -> bool:
        """Whether float is worth its run time, on the check images and on further images not used before."""
        images = self._images.with_unasked(self._start, self._drawn_from)
        errors, before = (images.errors(one.network()) for one in (candidate, self._candidate))
        own, least = errors.sum(axis=1), before.sum(axis=1)
        agree = float((own < least).mean()) >= _LEAST_AGREEING
        is_nearer = np.sqrt(own).sum() <= np.sqrt(1.0 - _LEAST_FLOAT_GAIN) * np.sqrt(least).sum()
        return bool(
            agree
            and is_nearer
            and is_less(own, least)
            and _spares(np.sqrt(errors), np.sqrt(before))
        )

    def result(self) -> Candidate:
        """The best candidate, with a record of all proposals."""
        kept = [f"{tried.move} ({tried.what})" for tried in self._tried if tried.kept]
        details = {
            "images_checked": len(self._images.feeds),
            "time_was_over": self._deadline.is_over,
            "error_before": float(self._before.sum()),
            "error": float(self._errors.sum()),
            "tried": self._tried,
        }
        record = Record(_STAGE, "; ".join(kept) or "nothing was better", details)
        artifact = replace(self._candidate.artifact, history=(*self._start.history, record))
        return replace(self._candidate, artifact=artifact)


def _spares(errors: np.ndarray, before: np.ndarray) -> bool:
    """Whether no part's error (``[images, parts]``) grows much: better boxes do not excuse worse scores."""
    return bool((errors.sum(axis=0) <= before.sum(axis=0) * (1.0 + _MOST_LOSS)).all())
