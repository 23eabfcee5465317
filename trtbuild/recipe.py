"""What the user asked for, as plain values; the command line and scripts make these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.backends import AUTO
from trtbuild.calibration import CalibrateOptions
from trtbuild.data import DataRecipe
from trtbuild.latency.measure import MeasureOptions
from trtbuild.passes import OptimizeOptions
from trtbuild.search.stage import TuneOptions
from trtbuild.verification.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.artifact import Record

__all__ = ["DataRecipe", "EngineRecipe"]


@dataclass(frozen=True)
class EngineRecipe:
    """Everything that makes an engine.

    Attributes:
        model: path of the float ONNX file.
        output: folder of the results; made if absent.
        int8: build in INT8; without it nothing is calibrated or quantized, and the backend's settings say
            which other precision to build.
        data: see `DataRecipe`.
        calibrate: how ranges are chosen.
        calibration: a calibration file to use instead of calibrating.
        float_patterns: layers kept in float, by node name, op type or glob.
        optimize: which graph passes run.
        backend: name of the backend, or ``auto``.
        settings: the backend's own options.
        batch_size: of verification, and of backends that calibrate by themselves.
        gate: the limits that decide.
        tune: how far to search when `gate` sets a budget; None only judges.
        latency: how long latency is measured; None leaves it out.
        earlier: what was done to the network before, such as its export; goes into the manifest.
    """

    model: Path
    output: Path
    int8: bool = True
    data: DataRecipe = field(default_factory=DataRecipe)
    calibrate: CalibrateOptions = field(default_factory=CalibrateOptions)
    calibration: Path | None = None
    float_patterns: tuple[str, ...] = ()
    optimize: OptimizeOptions = field(default_factory=OptimizeOptions)
    backend: str = AUTO
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    gate: Gate = field(default_factory=Gate)
    tune: TuneOptions | None = field(default_factory=TuneOptions)
    latency: MeasureOptions | None = field(default_factory=MeasureOptions)
    earlier: tuple[Record, ...] = ()
