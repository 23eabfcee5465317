"""Which target Q/DQ are placed for, where a job knows the backend that builds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT
from trtbuild.target import COMMON, FOR_RTX, TARGETS, installed_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trtbuild.recipe import EngineRecipe, QuantizeRecipe
    from trtbuild.target import Target

__all__ = ["engine_target", "quantize_target"]

_log = logging.getLogger(__name__)


def engine_target(recipe: EngineRecipe, backends: Iterable[str]) -> Target:
    """Return the target of a build: the one asked for, else that of the first backend that has one.

    Args:
        recipe: of the build.
        backends: names of those that build from its Q/DQ, the most important first.
    """
    own = _target_of_backends(recipe, backends)
    if recipe.target is None:
        return own
    if own not in (COMMON, TARGETS[recipe.target]):
        _log.warning(
            "Q/DQ are placed for the target %s, as asked, and the plan is one of %s: what is known of that "
            "compiler counts for nothing; without --target it would.",
            recipe.target,
            own.name,
        )
    return TARGETS[recipe.target]


def _target_of_backends(recipe: EngineRecipe, backends: Iterable[str]) -> Target:
    if recipe.tensorrt.dla is not None:
        return TARGETS["dla"]
    for backend in backends:
        if backend == TENSORRT.backend:
            return installed_target()
        if backend == RTX.backend:
            return FOR_RTX
    return COMMON


def quantize_target(recipe: QuantizeRecipe) -> Target:
    """Return the target asked for, else what is installed; `COMMON` for ONNX Runtime's form."""
    if recipe.target is not None:
        return TARGETS[recipe.target]
    return installed_target() if recipe.form == "tensorrt" else COMMON
