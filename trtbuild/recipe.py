"""What the user asked for, as plain values; the command line and scripts make these."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.backends import AUTO
from trtbuild.calibration import CalibrateOptions
from trtbuild.graph import OptimizeOptions
from trtbuild.latency.measure import MeasureOptions
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.data import Preprocess

__all__ = ["DataRecipe", "EngineRecipe"]


@dataclass(frozen=True)
class DataRecipe:
    """Which data calibrates, which verifies, and how it becomes the network's input.

    Attributes:
        data: file, folder or ``module:function``; None when none was given.
        preprocess: how pixels become inputs; None passes arrays as they are.
        verify_data: data kept for verification; None keeps a few percent of `data` apart.
        labels: file with the classes of the data that verifies.
        num_images: how many samples calibrate; None takes all.
        random_data: use random numbers, because the user asked for it by name.
        seed: of every choice among samples, and of random data.
    """

    data: str | None = None
    preprocess: Preprocess | None = None
    verify_data: str | None = None
    labels: Path | None = None
    num_images: int | None = None
    random_data: bool = False
    seed: int = 0

    @property
    def preprocess_text(self) -> str:
        """Identifies the preprocessing in a calibration's provenance."""
        if self.preprocess is None:
            return "none"
        return json.dumps(self.preprocess.as_dict(), sort_keys=True)


@dataclass(frozen=True)
class EngineRecipe:
    """Everything that makes an engine.

    Attributes:
        model: path of the float ONNX file.
        output: folder of the results; made if absent.
        data: see `DataRecipe`.
        calibrate: how ranges are chosen.
        calibration: a calibration file to use instead of calibrating.
        float_patterns: layers kept in float, by node name, op type or glob.
        optimize: which graph passes run.
        backend: name of the backend, or ``auto``.
        settings: the backend's own options.
        batch_size: of verification, and of backends that calibrate by themselves.
        gate: the limits that decide.
        latency: how long latency is measured; None leaves it out.
    """

    model: Path
    output: Path
    data: DataRecipe = field(default_factory=DataRecipe)
    calibrate: CalibrateOptions = field(default_factory=CalibrateOptions)
    calibration: Path | None = None
    float_patterns: tuple[str, ...] = ()
    optimize: OptimizeOptions = field(default_factory=OptimizeOptions)
    backend: str = AUTO
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    gate: Gate = field(default_factory=Gate)
    latency: MeasureOptions | None = field(default_factory=MeasureOptions)
