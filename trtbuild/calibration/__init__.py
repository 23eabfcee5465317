"""The float network runs over calibration data, and every watched tensor goes to `calibrators`."""

from __future__ import annotations

from trtbuild.calibration.observe import collect
from trtbuild.calibration.reuse import load_calibration, merge_files
from trtbuild.calibration.stage import CalibrateOptions, calibrate

__all__ = ["CalibrateOptions", "calibrate", "collect", "load_calibration", "merge_files"]
