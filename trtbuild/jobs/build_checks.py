"""Checks of a build that are possible before its network is read."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends import choose_backend
from trtbuild.backends.tensorrt.profiles import profiles_for, values_for
from trtbuild.calibration import check_method
from trtbuild.errors import OptionError
from trtbuild.jobs.paths import (
    Besides,
    Inputs,
    check_paths,
    data_inputs,
    is_same_file,
    named_inputs,
)
from trtbuild.jobs.speed import why_no_fp16
from trtbuild.passes import check_passes
from trtbuild.runtime.manifest_beside import manifest_name
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT
from trtbuild.verification.gate import NEEDS_LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trtbuild.backends.base import Backend
    from trtbuild.model.signature import TensorSpec
    from trtbuild.options.tensorrt import TensorRTOptions
    from trtbuild.recipes import EngineRecipe

__all__ = [
    "build_inputs",
    "build_outputs",
    "check_build",
    "check_inputs",
    "chosen_backends",
    "options_for",
    "ranges_name",
]

_log = logging.getLogger(__name__)


def check_build(recipe: EngineRecipe, besides: Besides | None = None) -> None:
    """Check what can be known of a build before its network is read: options, and every path.

    Raises:
        OutputError: a file or folder cannot be written.
        OptionError: an output is an input, there is no such backend, pass or method, or a limit is set on
            a figure that builds do not measure.
        MissingError: a backend does not work here.
    """
    suffixes = [backend.suffix for backend, _ in chosen_backends(recipe)]
    if recipe.gate.max_metric_drop is not None:
        raise OptionError(
            "--max-metric-drop needs your own metric, which a build does not take; build without it, and "
            "judge the engine with `trtbuild verify --metric`."
        )
    if recipe.weights_only and (recipe.quantized or not recipe.int8):
        raise OptionError(
            "--weights-only rounds the weights of a float network to INT8: add --int8, and leave --quantized "
            "out."
        )
    if not recipe.int8 and (recipe.float_patterns or recipe.float_groups):
        _log.warning(
            "--float and --float-group say what stays out of INT8; this build has no INT8, so they "
            "change nothing."
        )
    results = None if recipe.tune is None else recipe.tune.directory
    if results is not None and results.exists() and not results.is_dir():
        raise OptionError(f"--search-cache '{results}' is a file; name a folder.")
    _check_labels(recipe)
    _check_speed(recipe)
    check_passes(recipe.optimize)
    if recipe.calibrates:
        check_method(recipe.calibrate)
    # a calibration file in the output folder may be replaced: it is read before it is written
    kept = recipe.output / ranges_name(recipe) if recipe.int8 else None
    reads = tuple(
        (what, path)
        for what, path in build_inputs(recipe)
        if not (path == recipe.calibration and is_same_file(path, kept))
    )
    check_paths(reads, build_outputs(recipe, suffixes), besides, folder=recipe.output)


def _check_labels(recipe: EngineRecipe) -> None:
    """Refuse a limit on top-1 if samples come from files, but no labels; code may give labels itself."""
    data = recipe.data
    named = data.data if data.verify_data is None else data.verify_data
    are_files = data.random_data or (isinstance(named, str | Path) and Path(named).exists())
    if recipe.gate.max_top1_drop is not None and data.labels is None and are_files:
        raise OptionError(NEEDS_LABELS)


def _check_speed(recipe: EngineRecipe) -> None:
    """Refuse a limit on speed that nothing would be compared with."""
    limits = recipe.speed_limits
    if limits.flags and recipe.latency is None:
        raise OptionError(
            f"{limits.flags[0]} is a limit on latency, but --no-latency measures none: leave one of them out."
        )
    if limits.min_fp16_speedup is None:
        return
    if not (recipe.int8 and recipe.fp16_baseline):
        raise OptionError(
            "--min-fp16-speedup compares INT8 with FP16: it needs --int8, and no --no-fp16-baseline."
        )
    backend, _ = chosen_backends(recipe)[0]
    why = why_no_fp16(backend, options_for(backend, recipe))
    if why:
        raise OptionError(f"--min-fp16-speedup has nothing to compare with: {why}.")


def chosen_backends(recipe: EngineRecipe) -> tuple[tuple[Backend, str], ...]:
    """Return the backend that builds, and the one of ``--also`` if given, each with the reason.

    Raises:
        OptionError: there is no such backend, both are the same, or one cannot build what is asked for.
        MissingError: one of them does not work here.
    """
    backend, why = choose_backend(recipe.backend, recipe.tensorrt)
    chosen = [(backend, why)]
    if recipe.also is not None:
        other, why = choose_backend(recipe.also, recipe.tensorrt)
        if other.name == backend.name:
            raise OptionError(f"{other.name} builds the engine already; leave --also out.")
        chosen.append((other, why))
    for one, _ in chosen:
        one.check(options_for(one, recipe), int8=recipe.int8, fp16=recipe.fp16)
    return tuple(chosen)


def check_inputs(recipe: EngineRecipe, inputs: Sequence[TensorSpec]) -> None:
    """Check the recipe's options on the network's inputs, before anything is calibrated.

    Raises:
        OptionError: TensorRT is to build, and shapes do not fit the inputs or are missing for a dynamic one.
    """
    builders = (TENSORRT.backend, RTX.backend)
    if any(backend.name in builders for backend, _ in chosen_backends(recipe)):
        profiles_for(recipe.tensorrt.shapes, inputs)
        values_for(recipe.tensorrt.shape_values, inputs)


def options_for(backend: Backend, recipe: EngineRecipe) -> TensorRTOptions:
    """Return the options for `backend`; a backend beside an RTX plan does not get RTX's own options."""
    if recipe.also is None or backend.name == RTX.backend:
        return recipe.tensorrt
    return replace(recipe.tensorrt, compute_capabilities=(), runtime_cache=None)


def build_inputs(recipe: EngineRecipe) -> Inputs:
    """Return everything that a build reads; not the timing cache, which it also writes."""
    source = None if recipe.export is None else recipe.export.source
    return (
        *named_inputs(
            the_network=recipe.model if source is None else None,
            the_float_network=recipe.float_model,
            the_checkpoint=None if source is None else source.weights,
        ),
        *data_inputs(recipe.data),
        *named_inputs(
            the_annotations=recipe.task.coco,
            the_calibration=recipe.calibration,
            the_calibration_cache=recipe.tensorrt.cache,
        ),
        *(("the plugin library", path) for path in recipe.tensorrt.plugins),
    )


def build_outputs(recipe: EngineRecipe, suffixes: Iterable[str]) -> Iterator[Path]:
    """Yield the files that a build writes, including the caches that it updates.

    Args:
        recipe: the recipe of the build.
        suffixes: endings of its engines' file names.
    """
    yield from (recipe.output / name for name in _names(recipe, suffixes))
    if recipe.tensorrt.timing_cache is not None and recipe.tensorrt.lock is None:
        yield recipe.tensorrt.timing_cache
    if recipe.tensorrt.runtime_cache is not None:
        yield recipe.tensorrt.runtime_cache


def ranges_name(recipe: EngineRecipe) -> str:
    """Return the name of a build's calibration file."""
    return f"{recipe.model.stem}.calibration.json"


def _names(recipe: EngineRecipe, suffixes: Iterable[str]) -> Iterator[str]:
    """The names of the files in the output folder."""
    stem = recipe.model.stem
    if recipe.export is not None:
        yield recipe.model.name
    if recipe.int8:
        yield from (f"{stem}.int8.onnx", ranges_name(recipe))
    yield from (f"{stem}{suffix}" for suffix in suffixes)
    yield manifest_name(stem)
