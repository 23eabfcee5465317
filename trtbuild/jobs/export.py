"""Exports a PyTorch module as a checked ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from trtbuild.artifact import Record
from trtbuild.backends import AUTO
from trtbuild.errors import in_one_tree
from trtbuild.files import make_directory
from trtbuild.jobs.build_checks import check_build
from trtbuild.jobs.module_latency import latency_share
from trtbuild.jobs.paths import Besides, check_paths, named_inputs
from trtbuild.json_codec import Document, encode
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.backends.base import Backend
    from trtbuild.pytorch.activations import LayerActivation
    from trtbuild.pytorch.cost import LayerTime
    from trtbuild.pytorch.export import ExportResult
    from trtbuild.pytorch.export_steps import ExportSteps
    from trtbuild.pytorch.fold import FoldReport
    from trtbuild.pytorch.parity import ParityReport
    from trtbuild.pytorch.spec import ExportSpec
    from trtbuild.recipes import EngineRecipe

__all__ = ["Export", "export", "export_record", "layer_times", "module_values", "with_export"]


@dataclass(frozen=True)
class Export(Document):
    """An exported module.

    Attributes:
        files: the written files.
        opset: opset of the ONNX domain.
        num_nodes: number of nodes of the network.
        inputs, outputs: names of its inputs and outputs.
        steps: what was done with the module before.
        fold: what was done with each norm; None if folding was not asked for.
        parity: how much the file's results differ from the module's.
        activations: layers whose range is taken after their activation.
        warnings: sentences for the user.
        layer_times: time of each layer of the module in torch, slowest first; None if not asked for.
    """

    SCHEMA = "trtbuild.export"

    files: tuple[Path, ...]
    opset: int
    num_nodes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: ExportSteps
    fold: FoldReport | None
    parity: ParityReport
    activations: tuple[LayerActivation, ...]
    warnings: tuple[str, ...]
    layer_times: tuple[LayerTime, ...] | None = None


@in_one_tree()
def export(
    spec: ExportSpec,
    progress: Progress = silent,
    besides: Besides | None = None,
    backend: str | Backend = AUTO,
) -> ExportResult:
    """Do everything that `spec` asks for: load, prune, make sparse, fold, export, compare, write.

    Args:
        spec: the module, and what to do with it.
        progress: called in every stage.
        besides: other files that the command reads and writes.
        backend: the backend that times modules for a latency budget.

    Raises:
        ModelError: the module cannot be loaded, pruned, traced or exported.
        OptionError: an option does not fit this module.
        OutputError: the file cannot be written.
        MissingError: torch is not installed.
    """
    check_paths(named_inputs(the_checkpoint=spec.source.weights), [spec.path], besides)
    from trtbuild.pytorch import export_from_spec

    return export_from_spec(spec, progress, partial(latency_share, backend=backend))


@in_one_tree()
def layer_times(result: ExportResult, spec: ExportSpec) -> tuple[LayerTime, ...]:
    """Return the time of every layer of the exported module, slowest first."""
    from trtbuild.pytorch.cost import profile_layers

    return profile_layers(result.module, spec.traced_inputs)


def module_values(target: Any, output: Path) -> dict[str, Any]:
    """Return the values of an `EngineRecipe` whose network is exported into its output folder.

    Args:
        target: ``package.module:attribute`` of the module or its factory, or the module itself.
        output: the folder.
    """
    if isinstance(target, str):
        name = target.rpartition(":")[2].rpartition(".")[2]
    else:
        from trtbuild.pytorch.copies import unwrapped

        name = type(unwrapped(target)).__name__
    path = output / f"{name}.onnx"
    return {"model": path, "export": {"source": {"target": target}, "path": path}}


def with_export(
    recipe: EngineRecipe, progress: Progress = silent, besides: Besides | None = None
) -> tuple[EngineRecipe, ExportResult | None]:
    """Export the PyTorch module of a recipe, if it has one.

    If channels or weights are removed, the module is also exported as it was loaded
    (``NAME.loaded.onnx``): figures and limits refer to that.

    Returns:
        The recipe for the ONNX file, whose manifest will mention the export; and the result of the export.
    """
    if recipe.export is None:
        return recipe, None
    check_build(recipe, besides)
    make_directory(recipe.model.parent)
    result = export(recipe.export, progress, backend=recipe.backend)
    name = recipe.export.source.name
    loaded = None
    if recipe.export.thins:
        loaded = recipe.model.with_name(f"{recipe.model.stem}.loaded.onnx")
        whole = replace(recipe.export, prune=None, mask=None, sparsity=None, path=loaded)
        export(whole, progress)
    record = Record("export", f"exported from '{name}'", encode(export_record(result)))
    return replace(recipe, earlier=(*recipe.earlier, record), loaded=loaded), result


def export_record(result: ExportResult, times: tuple[LayerTime, ...] | None = None) -> Export:
    """Return the part of `export`'s result that programs read.

    Args:
        result: the export.
        times: times of its layers, see `layer_times`.
    """
    assert result.steps is not None  # it was made from a spec
    graph = result.model.graph
    return Export(
        files=result.files,
        opset=result.opset,
        num_nodes=len(graph),
        inputs=tuple(value.name or "" for value in graph.inputs),
        outputs=tuple(value.name or "" for value in graph.outputs),
        steps=result.steps,
        fold=result.fold,
        parity=result.parity,
        activations=result.activations,
        warnings=result.warnings,
        layer_times=times,
    )
