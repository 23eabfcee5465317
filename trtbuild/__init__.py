"""INT8 engines for NVIDIA TensorRT 10 and 11, built from float networks and verified against them.

The names below are the public interface (docs/python-api.md); a module is loaded when one of its names is
first asked for, so that ``import trtbuild`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact, Record
    from trtbuild.calibration import CalibrateOptions, calibrate, load_calibration
    from trtbuild.data import DataRecipe, Preprocess, open_data
    from trtbuild.errors import (
        DataError,
        GateError,
        InputError,
        MissingError,
        ModelError,
        OptionError,
        OutputError,
        TrtbuildError,
    )
    from trtbuild.jobs.bench import bench
    from trtbuild.jobs.engine import build_engine, load, prepare
    from trtbuild.jobs.export import export
    from trtbuild.jobs.prune import prune
    from trtbuild.jobs.rebuild import rebuild
    from trtbuild.jobs.verify import verify
    from trtbuild.manifest import read_manifest
    from trtbuild.model import input_specs, write_model
    from trtbuild.options.compare import ComparisonOptions, Diagnosis
    from trtbuild.options.measure import MeasureOptions
    from trtbuild.options.tensorrt import OpenOptions, TensorRTOptions
    from trtbuild.options.tune import TuneOptions
    from trtbuild.passes import OptimizeOptions, optimize
    from trtbuild.plan import Decision
    from trtbuild.pytorch.spec import ExportSpec, InputSpec, MaskSpec, ModuleSource, PruneSpec
    from trtbuild.quantization import portable_form, quantize, watched_tensors
    from trtbuild.recipe import BenchRecipe, EngineRecipe, PruneRecipe, VerifyRecipe
    from trtbuild.result import EngineResult
    from trtbuild.verification.gate import Gate

__all__ = [
    "Artifact",
    "BenchRecipe",
    "CalibrateOptions",
    "ComparisonOptions",
    "DataError",
    "DataRecipe",
    "Decision",
    "Diagnosis",
    "EngineRecipe",
    "EngineResult",
    "ExportSpec",
    "Gate",
    "GateError",
    "InputError",
    "InputSpec",
    "MaskSpec",
    "MeasureOptions",
    "MissingError",
    "ModelError",
    "ModuleSource",
    "OpenOptions",
    "OptimizeOptions",
    "OptionError",
    "OutputError",
    "Preprocess",
    "PruneRecipe",
    "PruneSpec",
    "Record",
    "TensorRTOptions",
    "TrtbuildError",
    "TuneOptions",
    "VerifyRecipe",
    "bench",
    "build_engine",
    "calibrate",
    "export",
    "input_specs",
    "load",
    "load_calibration",
    "open_data",
    "optimize",
    "portable_form",
    "prepare",
    "prune",
    "quantize",
    "read_manifest",
    "rebuild",
    "verify",
    "watched_tensors",
    "write_model",
]

_PLACES = {
    "trtbuild.artifact": ("Artifact", "Record"),
    "trtbuild.plan": ("Decision",),
    "trtbuild.calibration": ("CalibrateOptions", "calibrate", "load_calibration"),
    "trtbuild.data": ("DataRecipe", "Preprocess", "open_data"),
    "trtbuild.errors": (
        *("DataError", "GateError", "InputError", "MissingError", "ModelError", "OptionError"),
        *("OutputError", "TrtbuildError"),
    ),
    "trtbuild.passes": ("OptimizeOptions", "optimize"),
    "trtbuild.manifest": ("read_manifest",),
    "trtbuild.model": ("input_specs", "write_model"),
    "trtbuild.jobs.engine": ("build_engine", "load", "prepare"),
    "trtbuild.quantization": ("portable_form", "quantize", "watched_tensors"),
    "trtbuild.recipe": ("BenchRecipe", "EngineRecipe", "PruneRecipe", "VerifyRecipe"),
    "trtbuild.result": ("EngineResult",),
    "trtbuild.verification.gate": ("Gate",),
    "trtbuild.jobs.bench": ("bench",),
    "trtbuild.jobs.verify": ("verify",),
    "trtbuild.jobs.export": ("export",),
    "trtbuild.jobs.prune": ("prune",),
    "trtbuild.jobs.rebuild": ("rebuild",),
    "trtbuild.options.compare": ("ComparisonOptions", "Diagnosis"),
    "trtbuild.options.measure": ("MeasureOptions",),
    "trtbuild.options.tensorrt": ("OpenOptions", "TensorRTOptions"),
    "trtbuild.options.tune": ("TuneOptions",),
    "trtbuild.pytorch.spec": ("ExportSpec", "InputSpec", "MaskSpec", "ModuleSource", "PruneSpec"),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'trtbuild' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
