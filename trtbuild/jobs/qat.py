"""Lets the user train a PyTorch module with TensorRT's rounding, and exports it as a Q/DQ network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.data import HELD_OUT_SHARE, open_data
from trtbuild.errors import in_one_tree
from trtbuild.files import make_directory
from trtbuild.jobs.compare import task_of, verification_batches
from trtbuild.jobs.loading import load, prepare
from trtbuild.jobs.paths import check_paths, data_inputs, named_inputs
from trtbuild.jobs.ranges import int8_candidate
from trtbuild.jobs.targets import qat_request
from trtbuild.json_codec import Document
from trtbuild.model import input_specs
from trtbuild.options.compare import ComparisonOptions, TaskOptions
from trtbuild.options.effort import Effort
from trtbuild.progress import Progress, silent
from trtbuild.pytorch.spec import with_axes
from trtbuild.recipes import EngineRecipe
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.verification.compare import compare_each

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.artifact import Artifact
    from trtbuild.data import DataPlan
    from trtbuild.recipes import QatRecipe
    from trtbuild.verification.compare import Comparison

__all__ = ["BEFORE", "TRAINED", "QatOutcome", "TrainedScale", "qat"]

BEFORE, TRAINED = "before training", "trained"


@dataclass(frozen=True)
class TrainedScale:
    """The scale of a layer's input.

    Attributes:
        before, after: before and after the training.
    """

    before: float
    after: float


@dataclass(frozen=True)
class QatOutcome(Document):
    """The result of the training.

    Attributes:
        network: the Q/DQ network with the trained scales, an ONNX file.
        float_model: the float network that it is judged against, an ONNX file.
        layers: module paths of the layers with rounding.
        scales: module path -> scale of the layer's input.
        comparisons: figures against the float network on data that calibration has not seen, for the Q/DQ
            network before training and the trained one.
        warnings: warnings from loading and export.
    """

    SCHEMA = "trtbuild.qat"

    network: Path
    float_model: Path
    layers: tuple[str, ...]
    scales: Mapping[str, TrainedScale]
    comparisons: Mapping[str, Comparison]
    warnings: tuple[str, ...]


@in_one_tree()
def qat(recipe: QatRecipe, progress: Progress = silent) -> QatOutcome:
    """Fold and calibrate a module, let the user's function train it with TensorRT's rounding, and export it.

    Args:
        recipe: what to train, with which function, and the data for the thresholds.
        progress: called in every stage.

    Raises:
        InputError: the module, the data or an option is wrong, or nothing of the module runs in INT8.
        OptionError: the training function cannot be imported, or did something that `trained` refuses.
        OutputError: the folder cannot be written.
        MissingError: torch is not installed.
    """
    inputs = with_axes(recipe.inputs, recipe.dynamic)
    reads = (*named_inputs(the_checkpoint=recipe.source.weights), *data_inputs(recipe.data))
    name = recipe.source.name.rpartition(":")[2].replace(".", "_")
    files = recipe.output / f"{name}.loaded.onnx", recipe.output / f"{name}.qat.onnx"
    check_paths(reads, list(files), folder=recipe.output)
    from trtbuild.pytorch import export_onnx, load_module
    from trtbuild.pytorch.qat import places_of, prepare_qat, trained_scales
    from trtbuild.pytorch.training import the_function, trained

    train = the_function(recipe.train)
    module = load_module(recipe.source)
    make_directory(recipe.output)
    whole = export_onnx(module.module, inputs, path=files[0])
    artifact = prepare(load(files[0], recipe.data.batch_axes), None, progress)
    plan = open_data(
        recipe.data, input_specs(artifact.source), calibrates=True, held_out=HELD_OUT_SHARE
    )
    artifact = _quantized(artifact, plan, recipe, files[0], progress)
    assert artifact.quantized is not None
    places = places_of(artifact.quantized)
    rounding, layers = prepare_qat(whole.module, places)
    before = trained_scales(rounding)
    given = trained(train, recipe.train, rounding)
    result = export_onnx(given, inputs, path=files[1], fold=False)
    after = trained_scales(given)
    return QatOutcome(
        network=files[1],
        float_model=files[0],
        layers=tuple(layers),
        scales={
            path: TrainedScale(scale, after[path])
            for path, scale in before.items()
            if path in after
        },
        comparisons=_compared(artifact, files, plan, recipe, progress),
        warnings=(*module.warnings, *result.warnings),
    )


def _quantized(
    artifact: Artifact, plan: DataPlan, recipe: QatRecipe, loaded: Path, progress: Progress
) -> Artifact:
    """The network with Q/DQ; without moves of weights or scales, because they would not fit the module."""
    build = EngineRecipe(
        loaded,
        recipe.output,
        data=recipe.data,
        calibrate=recipe.calibrate,
        effort=Effort.FAST,
    )
    artifact = replace(artifact, request=qat_request(recipe))
    return int8_candidate(artifact, plan, build, progress).realized()


def _compared(
    artifact: Artifact,
    files: tuple[Path, Path],
    plan: DataPlan,
    recipe: QatRecipe,
    progress: Progress,
) -> Mapping[str, Comparison]:
    """Figures of the Q/DQ network before training and of the trained one, against the float network."""
    loaded, trained = files
    assert artifact.quantized is not None
    sessions = {
        BEFORE: open_session(artifact.quantized, Execution.REFERENCE),
        TRAINED: open_session(trained, Execution.REFERENCE),
    }
    specs = input_specs(artifact.source)
    return compare_each(
        open_session(loaded),
        sessions,
        verification_batches(specs, plan.verification, recipe.batch_size, progress),
        ComparisonOptions(make_task=task_of(artifact.source, plan.verification, TaskOptions())),
    )
