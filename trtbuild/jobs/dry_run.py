"""What a build would do and write, with every path checked before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends import choose_backend
from trtbuild.errors import InputError, OptionError, OutputError
from trtbuild.options.data import FOLDERS
from trtbuild.options.values import names_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trtbuild.recipe import EngineRecipe

__all__ = ["BuildPlan", "plan_build"]


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


def plan_build(recipe: EngineRecipe, also_written: Iterable[Path] = ()) -> BuildPlan:
    """Check every path of a recipe, and return what building it would do; nothing is written.

    Args:
        recipe: of the build.
        also_written: files besides, such as a report.

    Raises:
        InputError: an input is not there or cannot be read.
        OutputError: a file or folder cannot be written.
        OptionError: an output is an input, or there is no such backend.
        MissingError: the backend does not work here.
    """
    backend, why = choose_backend(recipe.backend, recipe.tensorrt)
    reads = list(_inputs(recipe))
    for what, path in reads:
        if not os.access(path, os.R_OK):
            raise InputError(f"{what} '{path}' does not exist or cannot be read.")
    writes = [recipe.output / name for name in _names(recipe, backend.name)]
    writes += also_written
    if recipe.tensorrt.timing_cache is not None and recipe.tensorrt.lock is None:
        writes.append(recipe.tensorrt.timing_cache)
    inputs = {path.resolve() for what, path in reads if what != "the timing cache"}
    for path in writes:
        if path.resolve() in inputs:
            raise OptionError(f"'{path}' is read and would be written over; choose another place.")
        _check_writable(path)
    return BuildPlan(
        tuple(_stages(recipe, backend.name)),
        backend.name,
        why,
        tuple(str(path) for _, path in reads),
        tuple(str(path) for path in writes),
    )


def _inputs(recipe: EngineRecipe) -> Iterator[tuple[str, Path]]:
    """What is read, and from where."""
    source = None if recipe.export is None else recipe.export.source
    cache = recipe.tensorrt.timing_cache
    named = {
        "the network": recipe.model if source is None else None,
        "the checkpoint": None if source is None else source.weights,
        "the data": recipe.data.data,
        "the data for verification": recipe.data.verify_data,
        "the labels": None if str(recipe.data.labels) == FOLDERS else recipe.data.labels,
        "the calibration": recipe.calibration,
        "the calibration cache": recipe.tensorrt.cache,
        "the timing cache": cache if cache is not None and cache.exists() else None,
    }
    for what, place in named.items():
        if place is not None and not (isinstance(place, str) and names_function(place)):
            yield what, Path(place)


def _names(recipe: EngineRecipe, backend: str) -> Iterator[str]:
    """The names of the files that a build leaves."""
    stem = recipe.model.stem
    if recipe.export is not None:
        yield recipe.model.name
    if recipe.int8:
        yield from (f"{stem}.int8.onnx", f"{stem}.calibration.json")
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


def _check_writable(path: Path) -> None:
    """Look at the nearest folder that is there; nothing is made."""
    if path.is_dir():
        raise OutputError(f"cannot write '{path}': it is a folder.")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write '{path}': '{folder}' is no folder that can be written.")
