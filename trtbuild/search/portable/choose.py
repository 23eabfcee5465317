"""What ONNX Runtime's form rounds, and how, chosen by check images.

ONNX Runtime's integer kernels also round what they give, which TensorRT's form does not. In order of what it
costs at run time, as long as more than a decibel lies between the two forms:

1. what both forms round gets a grid of its own, or TensorRT's: of values that hardly change, such as a plain
   background's, no rule says which is nearer;
2. what convolutions give to float operators gets a scale for each channel (`channel_scales`), with the most
   room that is near enough, for a Mul each; a SiLU's Sigmoid and Mul, and what else has no weights and is
   INT8 in this form alone, compute in float;
3. of the convolutions where that still costs the outputs most, a quarter or a half computes in float.

The share in float goes by the expected error of the outputs; the check images, which choose no scale, say
what is kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.artifact import Record
from trtbuild.errors import ModelError
from trtbuild.model.edits import tapped
from trtbuild.plan import PortableChoice
from trtbuild.progress import Progress, silent
from trtbuild.quantization import portable_form, portable_outputs, portable_placement
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.measured import Measure, parts_of
from trtbuild.search.portable.channel_scales import scored_steps
from trtbuild.search.ranges.check_images import CalibrationImages, CheckImages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.artifact import Artifact
    from trtbuild.data import Source
    from trtbuild.options.effort import Effort
    from trtbuild.search.portable.channel_scales import Scored

__all__ = ["choose_portable"]

_log = logging.getLogger(__name__)

# A decibel further from float than TensorRT's form is near enough.
_NEAR = 10**0.1
# Other images go beyond what a few have shown of a channel, by no share that is known; the most comes first.
_ROOMS = (2.0, 1.5, 1.25)
# Of the convolutions whose results are rounded for the kernel alone.
_SHARES_IN_FLOAT = (0.25, 0.5)
# Name -> whether it is TensorRT's.
_GRIDS = {"a grid of its own": False, "TensorRT's grid": True}


@dataclass(frozen=True)
class _Tried:
    """One choice, and its error on the check images."""

    what: str
    choice: PortableChoice
    error: float


def choose_portable(
    artifact: Artifact, source: Source, effort: Effort, progress: Progress = silent
) -> Artifact:
    """Return the quantized artifact with `Artifact.portable` chosen, and a record of what was tried.

    Args:
        artifact: quantized; its `source` is what is measured by.
        source: calibration images.
        effort: how many of them are used.
        progress: told of every choice tried.

    Raises:
        DataError: a sample does not load.
        ModelError: a network cannot be run.
    """
    try:
        images = CalibrationImages(source, effort).to_check(
            artifact, for_moves=True, reference=artifact.source
        )
    except ModelError as refused:
        _log.info("the portable form is left as it is: %s", refused)
        return artifact
    if images is None:
        return artifact
    return _Choice(artifact, images, progress).made()


class _Choice:
    """What was tried so far."""

    def __init__(self, artifact: Artifact, images: CheckImages, progress: Progress) -> None:
        assert artifact.quantized is not None
        self._artifact, self._images, self._progress = artifact, images, progress
        self._wanted = _NEAR * float(images.errors(artifact.quantized).sum())
        self._tried: list[_Tried] = []

    @property
    def _best(self) -> _Tried:
        return min(self._tried, key=lambda one: one.error)

    @property
    def _is_near(self) -> bool:
        return bool(self._tried) and self._best.error <= self._wanted

    def _try(self, what: str, choice: PortableChoice) -> float:
        """Try a choice, unless what there is is near enough, and return its error."""
        if self._is_near:
            return float("inf")
        network = portable_form(replace(self._artifact, portable=choice))
        error = float(self._images.errors(network).sum())
        self._tried.append(_Tried(what, choice, error))
        self._progress("portable form", len(self._tried), None)
        return error

    def made(self) -> Artifact:
        """The artifact with the best choice, and its record."""
        for grid, same in _GRIDS.items():
            self._try(grid, PortableChoice(same))
        if not self._is_near:
            self._try_channels(_scored(self._artifact, self._images))
        best = self._best
        details = {
            "images_checked": len(self._images.feeds),
            "error_wanted": self._wanted,
            "errors": {one.what: one.error for one in self._tried},
            "in_float": sorted(best.choice.in_float),
        }
        record = Record("portable form", best.what, details)
        return self._artifact.having(record, portable=best.choice)

    def _try_channels(self, scored: Mapping[float, Mapping[str, Scored]]) -> None:
        same, errors = self._best.choice.same_grid, {}
        for room, own in scored.items():
            errors[room] = self._try(*_with_channels(own, same=same, room=room, share=0.0))
        for share in _SHARES_IN_FLOAT if errors else ():
            room = min(errors, key=lambda one: errors[one])
            self._try(*_with_channels(scored[room], same=same, room=room, share=share))


def _with_channels(
    scored: Mapping[str, Scored], *, same: bool, room: float, share: float
) -> tuple[str, PortableChoice]:
    """What is tried, in words, and the choice: that share of the convolutions in float."""
    ranked = sorted(scored, key=lambda name: -scored[name].cost)
    few = frozenset(ranked[: round(share * len(ranked))])
    steps = {name: one.steps for name, one in scored.items() if name not in few}
    grid = next(name for name, is_same in _GRIDS.items() if is_same is same)
    what = f"{grid}, {len(steps)} tensors with a scale a channel and room of {room:g}, {len(few)} in float"
    return what, PortableChoice(same, steps, few, kernels=False)


def _scored(artifact: Artifact, images: CheckImages) -> Mapping[float, Mapping[str, Scored]]:
    """Room -> scales for channels of what convolutions give to float operators; empty without gradients."""
    artifact = replace(artifact, portable=PortableChoice(kernels=False))
    tensors = portable_outputs(artifact)
    few = images.others
    if not tensors or not few:
        return {}
    placement = portable_placement(artifact)
    session = open_session(tapped(artifact.model, images.measured), Execution.FLOAT)
    try:
        outputs = [session.run(one) for one in few]
    finally:
        session.close()
    measure = Measure.of(outputs, parts_of(artifact.model, images.measured))
    try:
        found = scored_steps(
            artifact.model, placement, tensors, images.measured, few, measure, _ROOMS
        )
    except ModelError as refused:
        _log.info("no scales for channels: %s", refused)
        return {}
    return found if all(found.values()) else {}
