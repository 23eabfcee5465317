"""The public names, and where each comes from."""

__all__: list[str]

from .calibration import AdviseRecipe as AdviseRecipe
from .calibration import CalibrateRecipe as CalibrateRecipe
from .calibration import CalibrationFiles as CalibrationFiles
from .comparison import CacheDiffRecipe as CacheDiffRecipe
from .comparison import CrosscheckRecipe as CrosscheckRecipe
from .comparison import DiffRecipe as DiffRecipe
from .engines import BenchRecipe as BenchRecipe
from .engines import EngineRecipe as EngineRecipe
from .engines import VerifyRecipe as VerifyRecipe
from .modules import CompressRecipe as CompressRecipe
from .modules import PruneRecipe as PruneRecipe
from .modules import QatRecipe as QatRecipe
from .modules import TuneRecipe as TuneRecipe
from .networks import CheckRecipe as CheckRecipe
from .networks import ConvertRecipe as ConvertRecipe
from .networks import OptimizeRecipe as OptimizeRecipe
from .networks import QuantizeRecipe as QuantizeRecipe
from .networks import TritonRecipe as TritonRecipe
