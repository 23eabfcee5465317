"""The last step of a compression: builds a folded network and an engine of a round's module, and judges."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.backends import choose_backend
from trtbuild.files import make_directory
from trtbuild.jobs.compress.record import CompressionPoint, CompressionStep
from trtbuild.jobs.compress.steps import (
    Setting,
    as_module,
    judged,
    loaded_network,
    module_held_at,
    network_cost,
    source_of,
)
from trtbuild.jobs.engine import build_engine
from trtbuild.jobs.export import with_export
from trtbuild.jobs.module_latency import opened_float, sample_feeds, timed_against
from trtbuild.model import read_model
from trtbuild.pytorch.spec import ExportSpec
from trtbuild.recipes import EngineRecipe
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.search.groups import with_weights_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trtbuild.jobs.compress.plan import Step
    from trtbuild.jobs.compress.record import Compression
    from trtbuild.jobs.module_latency import Timed
    from trtbuild.result import EngineResult
    from trtbuild.runtime.session import Session

__all__ = ["build_recipe", "build_step"]


def build_recipe(setting: Setting, folder: str, place: Path) -> EngineRecipe:
    """Return the recipe of the engine of the module in a folder of the run.

    Args:
        setting: setting of the run.
        folder: folder of the module.
        place: where the engine goes.
    """
    asked = setting.recipe
    path = place / f"{setting.name}.onnx"
    source = source_of(setting, folder)
    spec = ExportSpec(source=source, inputs=asked.inputs, dynamic=asked.dynamic, path=path)
    return EngineRecipe(
        model=path,
        output=place,
        data=asked.data,
        calibrate=asked.calibrate,
        effort=asked.effort,
        float_patterns=asked.float_patterns,
        target=asked.target,
        backend=asked.backend,
        batch_size=asked.batch_size,
        latency=None,
        export=spec,
    )


def build_step(setting: Setting, step: Step, record: Compression) -> CompressionStep:
    """Export a round's module, build its engine if INT8 was asked for, and judge every form of it.

    Raises:
        InputError: the module, the data or an option is wrong.
        MissingError: the backend does not work here.
    """
    module = module_held_at(setting, record.folder_of(step.round))
    place = make_directory(setting.recipe.output / step.folder)
    recipe = build_recipe(setting, record.folder_of(step.round), place)
    recipe, exported = with_export(recipe, setting.progress)
    assert exported is not None
    notes = list(exported.warnings)
    result = build_engine(recipe, setting.progress) if setting.recipe.int8 else None
    below: tuple[str, ...] = ()
    if result is not None:
        is_evaluated = "engine" in setting.limits
        below = (*result.below_floor_if(is_evaluated=is_evaluated), *result.not_run)
        notes += below
    first = _cost_of(record, step.round)
    points = []
    with contextlib.ExitStack() as stack:
        forms = dict(_forms(recipe, result, step.folder, stack))
        times = _times(setting, recipe, forms, stack)
        for stage, (session, path, size) in forms.items():
            cost = replace(first, stage=stage, path=path, weight_bytes=size)
            if stage in times:
                taken = times[stage]
                cost = replace(cost, latency_ms=taken.ms, latency_share=taken.share)
            network = as_module(setting, module, session)
            points.append(judged(setting, record, network, cost))
    return CompressionStep(step.name, points=tuple(points), notes=tuple(notes), below_floor=below)


def _cost_of(record: Compression, number: int) -> CompressionPoint:
    """The size figures of a round's last module, without accuracy and latency."""
    point = next(p for p in reversed(record.points) if p.round == number)
    return replace(point, figure=None, lost=None, latency_ms=None, latency_share=None)


def _forms(
    recipe: EngineRecipe, result: EngineResult | None, folder: str, stack: contextlib.ExitStack
) -> Iterator[tuple[str, tuple[Session, str, int]]]:
    """Stage -> its session, its path in the run's folder, and the bytes of its constants."""
    folded = read_model(recipe.model)
    yield "folded", (open_session(folded), f"{folder}/{recipe.model.name}", network_cost(folded))
    if result is None or result.artifact.quantized is None:
        return
    quantized = result.artifact.quantized
    weights = with_weights_only(quantized)
    yield "weights", (open_session(weights, Execution.REFERENCE), "", network_cost(weights))
    form = f"{folder}/{recipe.model.stem}.int8.onnx"
    yield "form", (open_session(quantized, Execution.REFERENCE), form, network_cost(quantized))
    if result.engine.not_opened:
        return
    backend, _ = choose_backend(recipe.backend, recipe.tensorrt)
    engine = backend.open(result.engine.path)
    stack.callback(engine.close)
    size = result.engine.path.stat().st_size
    yield "engine", (engine, f"{folder}/{result.engine.path.name}", size)


def _times(
    setting: Setting,
    recipe: EngineRecipe,
    forms: Mapping[str, tuple[Session, str, int]],
    stack: contextlib.ExitStack,
) -> Mapping[str, Timed]:
    """Latency of the folded network and of the engine, in turns with the module as loaded."""
    options = setting.recipe.latency
    if options is None:
        return {}
    backend, _ = choose_backend(recipe.backend, recipe.tensorrt)
    aside = recipe.output / "timed"
    loaded = stack.enter_context(opened_float(loaded_network(setting), backend, aside / "loaded"))
    folded = stack.enter_context(opened_float(recipe.model, backend, aside / "folded"))
    others = {"folded": folded}
    if "engine" in forms:
        others["engine"] = forms["engine"][0]
    return timed_against(loaded, others, sample_feeds(setting.loaded, setting.inputs), options)
