"""Calibration: run the float network over the data and pass every observed tensor to `calibrators`."""

from __future__ import annotations

from trtbuild.calibration.histograms import collect, load_ahead
from trtbuild.calibration.network import float_tensors, observed_network
from trtbuild.calibration.reuse import changes_since, load_calibration, merge_files, spot_check
from trtbuild.calibration.stage import calibrate, check_method, opener
from trtbuild.options.calibrate import AS_TENSORRT, CalibrateOptions

__all__ = [
    "AS_TENSORRT",
    "CalibrateOptions",
    "calibrate",
    "changes_since",
    "check_method",
    "collect",
    "float_tensors",
    "load_ahead",
    "load_calibration",
    "merge_files",
    "observed_network",
    "opener",
    "spot_check",
]
