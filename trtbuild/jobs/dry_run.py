"""What a build would do and write; everything is checked that needs no data."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trtbuild.data.opening import check_is_named
from trtbuild.errors import InputError, in_one_tree
from trtbuild.jobs.build_checks import (
    build_inputs,
    build_outputs,
    check_build,
    check_inputs,
    chosen_backends,
    options_for,
    ranges_name,
)
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.prequantized import prequantized_build
from trtbuild.jobs.ranges import observed_tensors
from trtbuild.jobs.speed import why_no_fp16
from trtbuild.jobs.targets import engine_request
from trtbuild.json_codec import Document
from trtbuild.model import input_specs
from trtbuild.options.tables import to_table
from trtbuild.quantization import check_floats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trtbuild.jobs.paths import Besides
    from trtbuild.jobs.prequantized import PrequantizedBuild
    from trtbuild.recipes import EngineRecipe

__all__ = ["BuildPlan", "plan_build"]


@dataclass(frozen=True)
class BuildPlan(Document):
    """What `build_engine` would do.

    Attributes:
        stages: stages in order.
        backend: name of the backend that would build.
        why: which backend was chosen, and why.
        reads: files and folders that are read.
        writes: files that would be written.
        recipe: every option, as in the manifest.
    """

    SCHEMA = "trtbuild.dry_run"

    stages: tuple[str, ...]
    backend: str
    why: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    recipe: Mapping[str, Any]


@in_one_tree()
def plan_build(recipe: EngineRecipe, besides: Besides | None = None) -> BuildPlan:
    """Check a recipe as far as that is possible without data, and return what building it would do.

    All paths are checked, the network is read, and the recipe's options on layers are checked on it.
    A network that has to be exported from PyTorch first is not read. Nothing is written.

    Args:
        recipe: recipe of the build.
        besides: other files of the command, such as a report.

    Raises:
        InputError: an input is missing or cannot be read, or no data is given.
        OutputError: a file or folder cannot be written.
        ModelError: the network cannot be read, or nothing of it would run in INT8.
        OptionError: see `trtbuild.jobs.build_checks.check_build`; or a pattern or name matches nothing.
        MissingError: the backend does not work here.
    """
    chosen = chosen_backends(recipe)
    backend, why = chosen[0]
    reads = build_inputs(recipe)
    for what, path in reads:
        if not os.access(path, os.R_OK):
            raise InputError(f"{what} '{path}' does not exist or cannot be read.")
    check_build(recipe, besides)
    backends = [one.name for one, _ in chosen]
    prequantized = None if recipe.export is not None else _check_network(recipe, backends)
    check_is_named(
        recipe.data,
        calibrates=recipe.calibrates if prequantized is None else prequantized.calibrates,
    )
    read = [*(path for _, path in reads), *(besides.read if besides else ())]
    outputs = build_outputs(recipe, [one.suffix for one, _ in chosen])
    writes = [
        # a network that came quantized gets no calibration file
        *(path for path in outputs if prequantized is None or path.name != ranges_name(recipe)),
        *(besides.written if besides else ()),
    ]
    return BuildPlan(
        tuple(_stages(recipe, backends, prequantized)),
        backend.name,
        why,
        tuple(dict.fromkeys(map(str, read))),
        tuple(str(path) for path in writes),
        to_table(recipe),
    )


def _check_network(recipe: EngineRecipe, backends: Iterable[str]) -> PrequantizedBuild | None:
    """Read the network, run the passes on it without comparing, and place Q/DQ.

    Returns:
        What was found in a network that is quantized already; None for a float network.
    """
    artifact = load(recipe.model, recipe.data.batch_axes)
    check_inputs(recipe, input_specs(artifact.source))
    artifact = replace(artifact, request=engine_request(recipe, backends))
    prequantized = prequantized_build(artifact, recipe)
    if prequantized is not None:
        return prequantized
    artifact = prepare(artifact, replace(recipe.optimize, check=False))
    if not recipe.int8:
        return None
    if recipe.calibration is None:
        observed_tensors(artifact, recipe)
    check_floats(artifact.model, artifact.request)
    return None


def _stages(
    recipe: EngineRecipe, backends: Iterable[str], prequantized: PrequantizedBuild | None
) -> Iterator[str]:
    if recipe.export is not None:
        yield "export"
    yield "read"
    if prequantized is None:
        yield from _stages_of_float(recipe)
    else:
        yield "take in"
        if prequantized.network.gaps:
            yield "fill gaps by calibration" if prequantized.calibrates else "fill gaps"
    yield from (f"build with {backend}" for backend in backends)
    yield "verify"
    if recipe.latency is None:
        return
    backend = chosen_backends(recipe)[0][0]
    can_compare = recipe.int8 and recipe.fp16_baseline
    if can_compare and not why_no_fp16(backend, options_for(backend, recipe)):
        yield "build in FP16 to compare with (only if the engine runs here)"
    yield "measure latency"


def _stages_of_float(recipe: EngineRecipe) -> Iterator[str]:
    """The stages of a float network."""
    yield "optimize"
    if not recipe.int8:
        return
    if recipe.calibrates:
        yield "calibrate"
    if recipe.chooses_ranges:
        yield f"choose ranges ({recipe.effort})"
    if recipe.may_search:
        yield "search (only if a limit is not met)"
    yield "quantize"
