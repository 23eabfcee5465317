"""Ranges from activations: names and NumPy arrays in, ranges out.

A `Collector` counts what a network's tensors hold, batch by batch; `choose` finds a threshold from
a tensor's `Histogram`; a `Calibration` holds the ranges of all tensors and can be written to a
file. The package knows nothing of ONNX, PyTorch or TensorRT's library and can be used with any
runtime::

    collector = Collector(["input", "relu1"])
    for number, batch in enumerate(batches):
        collector.observe(run(batch), batch=number)
    calibration = Calibration.from_histograms(collector.histograms, "entropy")
    calibration.scale("relu1")
"""

from __future__ import annotations

from calibrators.cache import CalibrationCache, version_digits
from calibrators.calibration import Calibration, merge_calibrations, with_shared_ranges
from calibrators.collector import Collector, NonFinite
from calibrators.crosscheck import (
    Agreement,
    Comparison,
    Crosscheck,
    crosscheck,
    read_onnxruntime_table,
)
from calibrators.doubling import DoublingHistogram, TensorRTCollector
from calibrators.errors import CalibratorError
from calibrators.histogram import Histogram
from calibrators.methods import METHODS, Stability, add_method, amax_of, assess, choose, stability
from calibrators.presets import PRESETS
from calibrators.ranges import TensorRange

__all__ = [
    "METHODS",
    "PRESETS",
    "Agreement",
    "Calibration",
    "CalibrationCache",
    "CalibratorError",
    "Collector",
    "Comparison",
    "Crosscheck",
    "DoublingHistogram",
    "Histogram",
    "NonFinite",
    "Stability",
    "TensorRTCollector",
    "TensorRange",
    "add_method",
    "amax_of",
    "assess",
    "choose",
    "crosscheck",
    "merge_calibrations",
    "read_onnxruntime_table",
    "stability",
    "version_digits",
    "with_shared_ranges",
]
