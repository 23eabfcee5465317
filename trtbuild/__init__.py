"""INT8 engines for NVIDIA TensorRT 10 and 11, built from float networks and verified against them.

The names below are the public interface (docs/python-api.md); a module is loaded when one of its names is
first asked for, so that ``import trtbuild`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact, EarlyStop, Record
    from trtbuild.backends.base import Engine
    from trtbuild.calibration import CalibrateOptions, calibrate, load_calibration
    from trtbuild.data import DataRecipe, Preprocess, open_data
    from trtbuild.data.recipe import DataPlan
    from trtbuild.data.samples import Source
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
    from trtbuild.jobs.bench import BenchResult, bench
    from trtbuild.jobs.engine import build_engine, load, prepare
    from trtbuild.jobs.export import export
    from trtbuild.jobs.paths import Besides
    from trtbuild.jobs.prune import PruneOutcome, prune
    from trtbuild.jobs.rebuild import Difference, Rebuilt, rebuild
    from trtbuild.jobs.verify import Verification, verify
    from trtbuild.latency.conditions import Conditions, Device
    from trtbuild.latency.measure import Samples
    from trtbuild.latency.regress import Answer, LatencyVerdict
    from trtbuild.manifest import read_manifest
    from trtbuild.model import input_specs, write_model
    from trtbuild.model.cut import Cut, ForeignOperator, LeftBehind
    from trtbuild.model.signature import TensorSpec
    from trtbuild.model.stats import GraphStats
    from trtbuild.options.compare import ComparisonOptions, Diagnosis, TaskOptions
    from trtbuild.options.data import Data
    from trtbuild.options.effort import Effort
    from trtbuild.options.measure import MeasureOptions
    from trtbuild.options.tensorrt import (
        Calibrator,
        HardwareCompatibility,
        OpenOptions,
        Quantization,
        RangeSource,
        Refit,
        RuntimePlatform,
        TensorRTOptions,
        Tiling,
        Verbosity,
    )
    from trtbuild.options.tune import TuneOptions
    from trtbuild.passes import OptimizeOptions, optimize
    from trtbuild.passes.driver import PassLog, PassRun, Rollback
    from trtbuild.passes.editor import Note
    from trtbuild.passes.optimizer import OptimizeResult
    from trtbuild.plan import Consumer, Decision, Group, GroupKind, Placement, WeightPoint
    from trtbuild.progress import Progress
    from trtbuild.pytorch.spec import ExportSpec, InputSpec, MaskSpec, ModuleSource, PruneSpec
    from trtbuild.quantization import portable_form, quantize, watched_tensors
    from trtbuild.recipe import BenchRecipe, EngineRecipe, PruneRecipe, VerifyRecipe
    from trtbuild.result import AlsoBuilt, EngineResult, OtherRule
    from trtbuild.search.bisect import Culprits
    from trtbuild.search.budget import StepReport, Tuned
    from trtbuild.search.sensitivity import GroupSensitivity
    from trtbuild.target import Attention, Target
    from trtbuild.verification.compare import Comparison
    from trtbuild.verification.effects import Effect
    from trtbuild.verification.gate import Finding, Gate, Verdict
    from trtbuild.verification.intervals import Estimate
    from trtbuild.verification.layers import ActivationError, LayerError, LayerReport, WeightError
    from trtbuild.verification.metrics import ImageComparison, OutputComparison
    from trtbuild.verification.parts import PartComparison
    from trtbuild.verification.ruling import Ruling
    from trtbuild.verification.scores import Accuracy, MetricScore
    from trtbuild.verification.tasks.base import Figure, SampleScore, TaskScore

__all__ = [
    "Accuracy",
    "ActivationError",
    "AlsoBuilt",
    "Answer",
    "Artifact",
    "Attention",
    "BenchRecipe",
    "BenchResult",
    "Besides",
    "CalibrateOptions",
    "Calibrator",
    "Comparison",
    "ComparisonOptions",
    "Conditions",
    "Consumer",
    "Culprits",
    "Cut",
    "Data",
    "DataError",
    "DataPlan",
    "DataRecipe",
    "Decision",
    "Device",
    "Diagnosis",
    "Difference",
    "EarlyStop",
    "Effect",
    "Effort",
    "Engine",
    "EngineRecipe",
    "EngineResult",
    "Estimate",
    "ExportSpec",
    "Figure",
    "Finding",
    "ForeignOperator",
    "Gate",
    "GateError",
    "GraphStats",
    "Group",
    "GroupKind",
    "GroupSensitivity",
    "HardwareCompatibility",
    "ImageComparison",
    "InputError",
    "InputSpec",
    "LatencyVerdict",
    "LayerError",
    "LayerReport",
    "LeftBehind",
    "MaskSpec",
    "MeasureOptions",
    "MetricScore",
    "MissingError",
    "ModelError",
    "ModuleSource",
    "Note",
    "OpenOptions",
    "OptimizeOptions",
    "OptimizeResult",
    "OptionError",
    "OtherRule",
    "OutputComparison",
    "OutputError",
    "PartComparison",
    "PassLog",
    "PassRun",
    "Placement",
    "Preprocess",
    "Progress",
    "PruneOutcome",
    "PruneRecipe",
    "PruneSpec",
    "Quantization",
    "RangeSource",
    "Rebuilt",
    "Record",
    "Refit",
    "Rollback",
    "Ruling",
    "RuntimePlatform",
    "SampleScore",
    "Samples",
    "Source",
    "StepReport",
    "Target",
    "TaskOptions",
    "TaskScore",
    "TensorRTOptions",
    "TensorSpec",
    "Tiling",
    "TrtbuildError",
    "TuneOptions",
    "Tuned",
    "Verbosity",
    "Verdict",
    "Verification",
    "VerifyRecipe",
    "WeightError",
    "WeightPoint",
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
    "trtbuild.artifact": (
        "Artifact",
        "EarlyStop",
        "Record",
    ),
    "trtbuild.backends.base": ("Engine",),
    "trtbuild.calibration": (
        "CalibrateOptions",
        "calibrate",
        "load_calibration",
    ),
    "trtbuild.data": (
        "DataRecipe",
        "Preprocess",
        "open_data",
    ),
    "trtbuild.data.recipe": ("DataPlan",),
    "trtbuild.data.samples": ("Source",),
    "trtbuild.errors": (
        "DataError",
        "GateError",
        "InputError",
        "MissingError",
        "ModelError",
        "OptionError",
        "OutputError",
        "TrtbuildError",
    ),
    "trtbuild.jobs.bench": (
        "BenchResult",
        "bench",
    ),
    "trtbuild.jobs.engine": (
        "build_engine",
        "load",
        "prepare",
    ),
    "trtbuild.jobs.export": ("export",),
    "trtbuild.jobs.prune": (
        "PruneOutcome",
        "prune",
    ),
    "trtbuild.jobs.rebuild": (
        "Difference",
        "Rebuilt",
        "rebuild",
    ),
    "trtbuild.jobs.verify": (
        "Verification",
        "verify",
    ),
    "trtbuild.latency.conditions": (
        "Conditions",
        "Device",
    ),
    "trtbuild.latency.measure": ("Samples",),
    "trtbuild.latency.regress": (
        "Answer",
        "LatencyVerdict",
    ),
    "trtbuild.manifest": ("read_manifest",),
    "trtbuild.model": (
        "input_specs",
        "write_model",
    ),
    "trtbuild.model.signature": ("TensorSpec",),
    "trtbuild.model.stats": ("GraphStats",),
    "trtbuild.options.compare": (
        "ComparisonOptions",
        "Diagnosis",
        "TaskOptions",
    ),
    "trtbuild.options.data": ("Data",),
    "trtbuild.options.effort": ("Effort",),
    "trtbuild.options.measure": ("MeasureOptions",),
    "trtbuild.options.tensorrt": (
        "Calibrator",
        "HardwareCompatibility",
        "OpenOptions",
        "Quantization",
        "RangeSource",
        "Refit",
        "RuntimePlatform",
        "TensorRTOptions",
        "Tiling",
        "Verbosity",
    ),
    "trtbuild.options.tune": ("TuneOptions",),
    "trtbuild.passes": (
        "OptimizeOptions",
        "optimize",
    ),
    "trtbuild.passes.driver": (
        "PassLog",
        "PassRun",
        "Rollback",
    ),
    "trtbuild.passes.editor": ("Note",),
    "trtbuild.passes.optimizer": ("OptimizeResult",),
    "trtbuild.plan": (
        "Consumer",
        "Decision",
        "Group",
        "GroupKind",
        "Placement",
        "WeightPoint",
    ),
    "trtbuild.progress": ("Progress",),
    "trtbuild.pytorch.spec": (
        "ExportSpec",
        "InputSpec",
        "MaskSpec",
        "ModuleSource",
        "PruneSpec",
    ),
    "trtbuild.quantization": (
        "portable_form",
        "quantize",
        "watched_tensors",
    ),
    "trtbuild.recipe": (
        "BenchRecipe",
        "EngineRecipe",
        "PruneRecipe",
        "VerifyRecipe",
    ),
    "trtbuild.result": ("AlsoBuilt", "EngineResult", "OtherRule"),
    "trtbuild.model.cut": ("Cut", "ForeignOperator", "LeftBehind"),
    "trtbuild.jobs.paths": ("Besides",),
    "trtbuild.search.bisect": ("Culprits",),
    "trtbuild.search.budget": (
        "StepReport",
        "Tuned",
    ),
    "trtbuild.search.sensitivity": ("GroupSensitivity",),
    "trtbuild.target": (
        "Attention",
        "Target",
    ),
    "trtbuild.verification.compare": ("Comparison",),
    "trtbuild.verification.effects": ("Effect",),
    "trtbuild.verification.gate": (
        "Finding",
        "Gate",
        "Verdict",
    ),
    "trtbuild.verification.intervals": ("Estimate",),
    "trtbuild.verification.layers": (
        "ActivationError",
        "LayerError",
        "LayerReport",
        "WeightError",
    ),
    "trtbuild.verification.metrics": (
        "ImageComparison",
        "OutputComparison",
    ),
    "trtbuild.verification.parts": ("PartComparison",),
    "trtbuild.verification.ruling": ("Ruling",),
    "trtbuild.verification.scores": (
        "Accuracy",
        "MetricScore",
    ),
    "trtbuild.verification.tasks.base": ("Figure", "SampleScore", "TaskScore"),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'trtbuild' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
