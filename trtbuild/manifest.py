"""The record beside an engine: what it was made of, what was done, how well it does.

JSON, schema ``trtbuild.manifest``; docs/manifest.md describes it.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from trtbuild.files import file_digest, write_text
from trtbuild.latency.stats import summarize
from trtbuild.machine import package_versions
from trtbuild.model import graph_digest, input_specs, output_specs, weights_digest
from trtbuild.next_step import after_engine, built_by
from trtbuild.options.values import to_table
from trtbuild.records import dumps, encode, load_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import onnx_ir as ir

    from calibrators import Calibration
    from trtbuild.backends.base import Engine
    from trtbuild.data import DataPlan, DataRecipe
    from trtbuild.model.signature import TensorSpec
    from trtbuild.plan import Decision, Group
    from trtbuild.recipe import EngineRecipe
    from trtbuild.result import EngineResult

__all__ = ["SCHEMA", "VERSION", "build_manifest", "read_manifest", "write_manifest"]

SCHEMA = "trtbuild.manifest"
VERSION = 1

_PACKAGES = ("trtbuild", "numpy", "onnx", "onnx-ir", "onnxruntime", "numba")


def write_manifest(result: EngineResult, recipe: EngineRecipe, plan: DataPlan) -> dict[str, Any]:
    """Write the manifest of `result`, as the last file of a build, and return it as JSON types."""
    manifest: dict[str, Any] = encode(build_manifest(result, recipe, plan))
    write_text(result.manifest, dumps(manifest) + "\n")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        InputError: unreadable, or of another schema or version.
    """
    return dict(load_object(path, SCHEMA, VERSION))


def build_manifest(result: EngineResult, recipe: EngineRecipe, plan: DataPlan) -> dict[str, Any]:
    """Return the manifest, of types that `trtbuild.records.encode` knows."""
    artifact = result.artifact
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "name": artifact.name,
        "passed": result.passed,
        "model": _model(recipe.model, artifact.source),
        "data": _data(recipe.data, plan),
        "options": {
            "float": list(recipe.float_patterns),
            "backend": to_table(recipe)["backend"],
            "batch_size": recipe.batch_size,
            "seed": recipe.data.seed,
            "gate": recipe.gate.limits,
        },
        "recipe": to_table(recipe, recipe.output),
        "command": built_by(recipe),
        "stages": [
            {"stage": r.stage, "summary": r.summary, "details": dict(r.details)}
            for r in artifact.history
        ],
        "calibration": _calibration(artifact.calibration),
        "layers": [_decision(decision) for decision in artifact.decisions],
        "groups": [_group(group) for group in artifact.groups],
        "engine": _engine(result.engine, result.why_backend),
        "also": None
        if result.also is None
        else _engine(result.also.engine, result.also.why_backend),
        "files": _files(result.files, result.manifest.parent),
        "verification": {
            name: {**comparison.to_json(), "verdict": result.verdicts[name].to_json()}
            for name, comparison in result.comparisons.items()
        },
        "ruling": encode(result.ruling),
        "next_step": encode(after_engine(result, recipe)),
        "below_floor": list(result.below_floor),
        "unjudged_collapse": result.unjudged_collapse,
        "better_rule": encode(result.better_rule),
        "below_tensorrt_form": [encode(gap) for gap in result.below_tensorrt_form],
        "layers_at_fault": None if result.layers is None else encode(result.layers),
        "latency": {name: encode(summarize(samples)) for name, samples in result.latency.items()},
        "latency_verdicts": encode(result.latency_verdicts),
        "latency_against_fp16": encode(result.against_fp16),
        "without_fp16": result.without_fp16,
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"system": platform.system(), "processor": platform.machine()},
    }


def _model(file: Path, network: ir.Model) -> dict[str, Any]:
    return {
        "file": file.name,
        "digest": file_digest(file),
        "graph": graph_digest(network),
        "weights": weights_digest(network),
        "inputs": _specs(input_specs(network)),
        "outputs": _specs(output_specs(network)),
    }


def _files(written: Mapping[str, str], folder: Path) -> dict[str, Any]:
    return {
        name: {
            "what": what,
            "digest": file_digest(folder / name),
            "bytes": (folder / name).stat().st_size,
        }
        for name, what in written.items()
    }


def _engine(engine: Engine, why: str) -> dict[str, Any]:
    return {
        "backend": engine.backend,
        "why": why,
        "file": engine.path.name,
        "not_opened": engine.not_opened,
        "details": dict(engine.details),
    }


def _specs(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": s.name, "dtype": s.dtype.name, "dims": list(s.dims)} for s in specs]


def _data(recipe: DataRecipe, plan: DataPlan) -> dict[str, Any]:
    calibrates = plan.calibration
    return {
        "random": recipe.random_data,
        "preprocess": None if recipe.preprocess is None else recipe.preprocess.as_dict(),
        "calibration": None if calibrates is None else calibrates.description,
        "calibration_digest": None if calibrates is None else str(calibrates.index.digest),
        "verification": plan.verification.description,
        "verification_digest": str(plan.verification.index.digest),
    }


def _calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    amax = {name: given.amax for name, given in sorted(calibration.ranges.items())}
    return {"method": calibration.method, "amax": amax}


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "op_type": group.op_type,
        "kind": group.kind,
        "int8": group.int8,
        "reason": group.reason,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "node": decision.node,
        "op_type": decision.op_type,
        "int8": decision.quantized,
        "reason": decision.reason,
    }


def _versions() -> dict[str, str]:
    found = package_versions(*_PACKAGES)
    return {package: found.get(package, "not installed") for package in _PACKAGES}
