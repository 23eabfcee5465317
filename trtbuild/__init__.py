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
    from trtbuild.jobs.engine import build_engine, load, prepare
    from trtbuild.manifest import read_manifest
    from trtbuild.model import input_specs, write_model
    from trtbuild.passes import OptimizeOptions
    from trtbuild.plan import Decision
    from trtbuild.quantization import portable_form, quantize, watched_tensors
    from trtbuild.recipe import EngineRecipe
    from trtbuild.result import EngineResult
    from trtbuild.verification.gate import Gate

__all__ = [
    "Artifact",
    "CalibrateOptions",
    "DataError",
    "DataRecipe",
    "Decision",
    "EngineRecipe",
    "EngineResult",
    "Gate",
    "GateError",
    "InputError",
    "MissingError",
    "ModelError",
    "OptimizeOptions",
    "OptionError",
    "OutputError",
    "Preprocess",
    "Record",
    "TrtbuildError",
    "build_engine",
    "calibrate",
    "input_specs",
    "load",
    "load_calibration",
    "open_data",
    "portable_form",
    "prepare",
    "quantize",
    "read_manifest",
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
    "trtbuild.passes": ("OptimizeOptions",),
    "trtbuild.manifest": ("read_manifest",),
    "trtbuild.model": ("input_specs", "write_model"),
    "trtbuild.jobs.engine": ("build_engine", "load", "prepare"),
    "trtbuild.quantization": ("portable_form", "quantize", "watched_tensors"),
    "trtbuild.recipe": ("EngineRecipe",),
    "trtbuild.result": ("EngineResult",),
    "trtbuild.verification.gate": ("Gate",),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'trtbuild' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
