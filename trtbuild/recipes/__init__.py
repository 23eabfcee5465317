"""What the user asked for, one recipe a job; the command line, recipe files and scripts make these."""

from __future__ import annotations

from trtbuild.recipes.calibration import AdviseRecipe, CalibrateRecipe, CalibrationFiles
from trtbuild.recipes.comparison import CacheDiffRecipe, CrosscheckRecipe, DiffRecipe
from trtbuild.recipes.engines import BenchRecipe, EngineRecipe, VerifyRecipe
from trtbuild.recipes.modules import CompressRecipe, PruneRecipe, QatRecipe, TuneRecipe
from trtbuild.recipes.networks import (
    CheckRecipe,
    ConvertRecipe,
    OptimizeRecipe,
    QuantizeRecipe,
    TritonRecipe,
)

__all__ = [
    "AdviseRecipe",
    "BenchRecipe",
    "CacheDiffRecipe",
    "CalibrateRecipe",
    "CalibrationFiles",
    "CheckRecipe",
    "CompressRecipe",
    "ConvertRecipe",
    "CrosscheckRecipe",
    "DiffRecipe",
    "EngineRecipe",
    "OptimizeRecipe",
    "PruneRecipe",
    "QatRecipe",
    "QuantizeRecipe",
    "TritonRecipe",
    "TuneRecipe",
    "VerifyRecipe",
]
