"""Help texts of options that several recipes have."""

from __future__ import annotations

__all__ = [
    "AXES",
    "BATCH",
    "EFFORT",
    "FLOAT",
    "FRESH",
    "GROUPS",
    "INPUT",
    "JUDGES",
    "RUN_FOLDER",
    "SAMPLES_A_RUN",
    "STRICT",
    "TARGET",
    "TOO_FEW",
    "TO_WRITE",
]

JUDGES = ("verify_data", "labels")
"""Data options that jobs without a verdict do not need."""
FLOAT = "Keep groups of Q/DQ in float: node name, op type, or glob. Repeatable."
GROUPS = "Keep the group of exactly this name in float; never read as a pattern. Repeatable."
TARGET = (
    "Compiler that Q/DQ are placed for: what it runs in float, or cheaper in float, stays float."
)
STRICT = "Fail on a tensor that was always zero or has no range; otherwise the layers reading it stay float."
EFFORT = "How much to try when choosing ranges; no effect with --calibrator or --calibration."
BATCH = "Batch size of verification, and of calibration inside TensorRT."
SAMPLES_A_RUN = "Samples per run, if the network's batch size is dynamic."
TO_WRITE = "ONNX file to write."
RUN_FOLDER = "Folder for the run; made if absent."
TOO_FEW = "Exit with 5, not 0, when the verdict is CANNOT TELL."
INPUT = "[name:]dims[:dtype][:low..high], for example 1x3x224x224. Repeatable."
AXES = "batch, or [input:]axis=name,... for other axes. Repeatable."
FRESH = "Start again: an unfinished run in the folder is not continued."
