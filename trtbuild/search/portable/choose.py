"""Chooses by check images what ONNX Runtime's form rounds, and with which scales.

ONNX Runtime's integer kernels also round their outputs, which TensorRT's form does not. These choices are
tried, the cheapest at run time first, until ONNX Runtime's form is within a decibel of TensorRT's:

1. Tensors that both forms round get uint8 scales of their own, or TensorRT's: for nearly constant values,
   such as those of a plain background, no rule tells which is better.
2. Outputs of convolutions that float operators read get per-channel scales (`channel_scales`), for one Mul
   each, with the most room that is good enough. Nodes without weights that are INT8 in this form alone, such
   as a SiLU's Sigmoid and Mul, compute in float.
3. Of these convolutions, a quarter or a half computes in float: those whose rounding costs the outputs most.

The convolutions in float are chosen by the expected error of the outputs; check images, which choose no
scale, decide what is kept.
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
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbuild.artifact import Artifact
    from trtbuild.data import Source
    from trtbuild.options.effort import Effort
    from trtbuild.search.portable.channel_scales import Scored

__all__ = ["choose_portable"]

_log = logging.getLogger(__name__)

# One decibel more error than TensorRT's form is accepted.
_NEAR = 10**0.1
# Other images exceed a channel's range on a few images by an unknown factor; the largest is tried first.
_ROOMS = (2.0, 1.5, 1.25)
# Shares of the convolutions whose outputs only ONNX Runtime's form rounds.
_SHARES_IN_FLOAT = (0.25, 0.5)
# Name -> `PortableChoice.same_grid`.
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
        artifact: a quantized artifact; errors are measured relative to its `source`.
        source: calibration images.
        effort: decides how many of them are used.
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
    """The choices tried so far."""

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
        """Try a choice and return its error; infinity, untried, if the best so far is good enough."""
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
    """The choice with this share of the convolutions in float, after its description in words."""
    ranked = sorted(scored, key=lambda name: -scored[name].cost)
    few = frozenset(ranked[: round(share * len(ranked))])
    steps = {name: one.steps for name, one in scored.items() if name not in few}
    grid = next(name for name, is_same in _GRIDS.items() if is_same is same)
    rounded = f"{counted(len(steps), 'tensor')} with a scale a channel and room of {room:g}"
    return f"{grid}, {rounded}, {len(few)} in float", PortableChoice(
        same, steps, few, kernels=False
    )


def _scored(artifact: Artifact, images: CheckImages) -> Mapping[float, Mapping[str, Scored]]:
    """Room -> per-channel scales of `portable_outputs`; empty without gradients."""
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
