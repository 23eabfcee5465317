"""Writes the manifest of a build."""

from __future__ import annotations

import logging
import platform
from typing import TYPE_CHECKING

from trtbuild.files import file_digest, write_text
from trtbuild.jobs.next_step import after_engine, built_by
from trtbuild.json_codec import dumps
from trtbuild.latency.stats import summarize
from trtbuild.machine import package_versions
from trtbuild.manifest import (
    AskedRecord,
    DataRecord,
    FileRecord,
    JudgedComparison,
    Manifest,
    ModelRecord,
    RangesRecord,
    TensorRecord,
)
from trtbuild.model import graph_digest, input_specs, output_specs, weights_digest
from trtbuild.options.tables import to_table
from trtbuild.runtime.manifest_beside import EngineRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from calibrators import Calibration
    from trtbuild.artifact import Artifact
    from trtbuild.backends.base import Engine
    from trtbuild.data import DataPlan, DataRecipe
    from trtbuild.model.signature import TensorSpec
    from trtbuild.recipes import EngineRecipe
    from trtbuild.result import EngineResult

__all__ = ["file_records", "write_manifest"]

_log = logging.getLogger(__name__)

_PACKAGES = ("trtbuild", "numpy", "onnx", "onnx-ir", "onnxruntime", "llvmlite")


def write_manifest(
    result: EngineResult, recipe: EngineRecipe, plan: DataPlan, files: Mapping[str, FileRecord]
) -> Manifest:
    """Write the manifest of `result`, as the last file of a build, and return it.

    Args:
        result: result of the build.
        recipe: the user's options.
        plan: the data.
        files: the other written files, see `file_records`.
    """
    manifest = _manifest(result, recipe, plan, files)
    write_text(result.manifest, dumps(manifest) + "\n")
    return manifest


def _manifest(
    result: EngineResult, recipe: EngineRecipe, plan: DataPlan, files: Mapping[str, FileRecord]
) -> Manifest:
    artifact, also = result.artifact, result.also
    return Manifest(
        name=artifact.name,
        passed=result.passed,
        model=_model(recipe.model, artifact),
        data=_data(recipe.data, plan),
        options=AskedRecord(
            recipe.float_patterns,
            to_table(recipe)["backend"],
            recipe.batch_size,
            recipe.data.seed,
            recipe.gate.limits,
        ),
        recipe=to_table(recipe, recipe.output),
        command=built_by(recipe),
        stages=artifact.history,
        calibration=_ranges(artifact.calibration),
        layers=artifact.decisions,
        groups=tuple(group.record for group in artifact.groups),
        engine=_engine(result.engine, result.why_backend),
        also=None if also is None else _engine(also.engine, also.why_backend),
        files=files,
        verification={
            name: JudgedComparison(**vars(comparison), verdict=result.verdicts[name])
            for name, comparison in result.comparisons.items()
        },
        ruling=result.ruling,
        next_step=after_engine(result, recipe),
        below_floor=result.below_floor,
        unjudged_collapse=result.unjudged_collapse,
        better_rule=result.better_rule,
        below_tensorrt_form=result.below_tensorrt_form,
        layers_at_fault=result.layers,
        latency={name: summarize(samples) for name, samples in result.latency.items()},
        latency_verdicts=result.latency_verdicts,
        latency_against_fp16=result.against_fp16,
        without_fp16=result.without_fp16,
        speed=result.speed,
        versions={"python": platform.python_version(), **_versions()},
        machine={"system": platform.system(), "processor": platform.machine()},
    )


def _model(file: Path, artifact: Artifact) -> ModelRecord:
    network = artifact.source
    return ModelRecord(
        file.name,
        _digest_when_read(file, artifact),
        graph_digest(network),
        weights_digest(network),
        _tensors(input_specs(network)),
        _tensors(output_specs(network)),
    )


def _digest_when_read(file: Path, artifact: Artifact) -> str:
    """The digest of the file as it was read; warns if the file has changed since."""
    read = next((one.details["digest"] for one in artifact.history if one.stage == "read"), "")
    now = file_digest(file) if file.is_file() else ""
    if read and read != now:
        _log.warning(
            "'%s' was changed after it was read; the engine was built from the former content.",
            file,
        )
    return str(read or now)


def _tensors(specs: Iterable[TensorSpec]) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(one.name, one.dtype.name, tuple(one.dims)) for one in specs)


def _data(recipe: DataRecipe, plan: DataPlan) -> DataRecord:
    calibrates, verifies = plan.calibration, plan.verification
    return DataRecord(
        recipe.random_data,
        None if recipe.preprocess is None else recipe.preprocess.as_dict(),
        None if calibrates is None else calibrates.description,
        None if calibrates is None else str(calibrates.index.digest),
        verifies.description,
        str(verifies.index.digest),
    )


def _ranges(calibration: Calibration | None) -> RangesRecord | None:
    if calibration is None:
        return None
    amax = {name: found.amax for name, found in sorted(calibration.ranges.items())}
    return RangesRecord(calibration.method, amax)


def _engine(engine: Engine, why: str) -> EngineRecord:
    return EngineRecord(engine.backend, why, engine.path.name, engine.not_opened, engine.details)


def file_records(written: Mapping[str, str], folder: Path) -> dict[str, FileRecord]:
    """Return the manifest's records of files in `folder`, by name; `written` has a description of each."""
    return {
        name: FileRecord(what, file_digest(folder / name), (folder / name).stat().st_size)
        for name, what in written.items()
    }


def _versions() -> dict[str, str]:
    found = package_versions(*_PACKAGES)
    return {package: found.get(package, "not installed") for package in _PACKAGES}
