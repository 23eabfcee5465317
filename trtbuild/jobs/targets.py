"""Placement requests of recipes: what stays float, and the target, from the backends that build."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trtbuild.plan import PlacementRequest
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, TURING
from trtbuild.target import COMMON, FOR_RTX, FOR_TURING, TARGETS, installed_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trtbuild.recipes import EngineRecipe, QatRecipe, QuantizeRecipe
    from trtbuild.target import Target

__all__ = ["engine_request", "engine_target", "qat_request", "quantize_request"]

_log = logging.getLogger(__name__)


def engine_request(recipe: EngineRecipe, backends: Iterable[str]) -> PlacementRequest:
    """Return what a build keeps in float, and its target; see `engine_target`."""
    target = engine_target(recipe, backends)
    return PlacementRequest(recipe.float_patterns, frozenset(recipe.float_groups), target)


def engine_target(recipe: EngineRecipe, backends: Iterable[str]) -> Target:
    """Return the target of a build: the one asked for, else that of the first backend that has one.

    Args:
        recipe: recipe of the build.
        backends: names of the backends that build from its Q/DQ, the most important first.
    """
    own = _target_of_backends(recipe, backends)
    if recipe.target is None:
        return own
    if own not in (COMMON, TARGETS[recipe.target]):
        _log.warning(
            "Q/DQ are placed for the target %s, as given, but the plan is for %s: what is known about "
            "that compiler is not used. Leave --target out to use it.",
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
            alone = set(recipe.tensorrt.compute_capabilities) == {TURING}
            return FOR_TURING if alone else FOR_RTX
    return COMMON


def quantize_request(recipe: QuantizeRecipe) -> PlacementRequest:
    """Return what stays in float, and the target: the one asked for, else what is installed.

    The target of ONNX Runtime's form is `COMMON`.
    """
    target = installed_target() if recipe.form == "tensorrt" else COMMON
    if recipe.target is not None:
        target = TARGETS[recipe.target]
    return PlacementRequest(recipe.float_patterns, frozenset(recipe.float_groups), target)


def qat_request(recipe: QatRecipe) -> PlacementRequest:
    """Return what stays in float in a module to be trained, and the target asked for."""
    target = None if recipe.target is None else TARGETS[recipe.target]
    return PlacementRequest(recipe.float_patterns, target=target)
