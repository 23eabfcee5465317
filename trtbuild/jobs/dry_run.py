"""What a build would do and write, with every path checked before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.backends import choose_backend
from trtbuild.errors import InputError
from trtbuild.jobs.paths import (
    Besides,
    Inputs,
    check_paths,
    data_inputs,
    is_same_file,
    named_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbuild.recipe import EngineRecipe

__all__ = ["BuildPlan", "check_build", "plan_build"]


@dataclass(frozen=True)
class BuildPlan:
    """What `build_engine` would do.

    Attributes:
        stages: in their order.
        backend: the one that would build.
        why: what was picked, and why.
        reads: the files and folders that are read.
        writes: the files that would be written.
    """

    stages: tuple[str, ...]
    backend: str
    why: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def plan_build(recipe: EngineRecipe, besides: Besides | None = None) -> BuildPlan:
    """Check every path of a recipe, and return what building it would do; nothing is written.

    Args:
        recipe: of the build.
        besides: files besides, such as a report.

    Raises:
        InputError: an input is not there or cannot be read.
        OutputError: a file or folder cannot be written.
        OptionError: an output is an input, or there is no such backend.
        MissingError: the backend does not work here.
    """
    backend, why = choose_backend(recipe.backend, recipe.tensorrt)
    reads = _inputs(recipe)
    for what, path in reads:
        if not os.access(path, os.R_OK):
            raise InputError(f"{what} '{path}' does not exist or cannot be read.")
    check_build(recipe, besides)
    writes = [*_outputs(recipe, backend.name), *(besides.written if besides else ())]
    return BuildPlan(
        tuple(_stages(recipe, backend.name)),
        backend.name,
        why,
        tuple(str(path) for _, path in reads),
        tuple(str(path) for path in writes),
    )


def check_build(recipe: EngineRecipe, besides: Besides | None = None) -> None:
    """Check that no output of a build is one of its inputs, and that all can be written.

    Raises:
        OutputError: a file or folder cannot be written.
        OptionError: an output is an input, or there is no such backend.
        MissingError: the backend does not work here.
    """
    backend, _ = choose_backend(recipe.backend, recipe.tensorrt)
    # the ranges of an earlier build in the same folder: read before they are written anew
    kept = recipe.output / _ranges_name(recipe) if recipe.int8 else None
    reads = tuple(
        (what, path)
        for what, path in _inputs(recipe)
        if not (path == recipe.calibration and is_same_file(path, kept))
    )
    check_paths(reads, _outputs(recipe, backend.name), besides, folder=recipe.output)


def _inputs(recipe: EngineRecipe) -> Inputs:
    """What is read, and from where; the timing cache is written, too, and that is no mistake."""
    source = None if recipe.export is None else recipe.export.source
    return (
        *named_inputs(
            the_network=recipe.model if source is None else None,
            the_checkpoint=None if source is None else source.weights,
        ),
        *data_inputs(recipe.data),
        *named_inputs(
            the_calibration=recipe.calibration, the_calibration_cache=recipe.tensorrt.cache
        ),
    )


def _outputs(recipe: EngineRecipe, backend: str) -> Iterator[Path]:
    """The files that a build leaves, and the timing cache that it writes anew."""
    yield from (recipe.output / name for name in _names(recipe, backend))
    if recipe.tensorrt.timing_cache is not None and recipe.tensorrt.lock is None:
        yield recipe.tensorrt.timing_cache


def _ranges_name(recipe: EngineRecipe) -> str:
    return f"{recipe.model.stem}.calibration.json"


def _names(recipe: EngineRecipe, backend: str) -> Iterator[str]:
    """The names of the files that a build leaves."""
    stem = recipe.model.stem
    if recipe.export is not None:
        yield recipe.model.name
    if recipe.int8:
        yield from (f"{stem}.int8.onnx", _ranges_name(recipe))
    yield f"{stem}.plan" if backend == "tensorrt" else f"{stem}.{backend}.onnx"
    yield f"{stem}.manifest.json"


def _stages(recipe: EngineRecipe, backend: str) -> Iterator[str]:
    if recipe.export is not None:
        yield "export"
    yield "read"
    yield "optimize"
    if recipe.int8:
        if recipe.calibration is None:
            yield "calibrate"
        if recipe.tune is not None and recipe.gate.limits and recipe.calibration is None:
            yield "search, only if a limit is not met"
        yield "quantize"
    yield f"build with {backend}"
    yield "verify"
    if recipe.latency is not None:
        yield "measure latency"
