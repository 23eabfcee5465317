"""Names of the networks that a build compares and times, and their titles for people."""

from __future__ import annotations

__all__ = [
    "ALSO",
    "ENGINE",
    "FLOAT",
    "FP16",
    "PORTABLE",
    "PRUNED",
    "TENSORRT_FORM",
    "TITLES",
    "WEIGHTS_INT8",
    "in_a_sentence",
]

# Names of networks in comparisons and latencies.
FLOAT = "float"
TENSORRT_FORM = "tensorrt_form"
ENGINE = "engine"
ALSO = "also"
# An FP16 engine that INT8 is timed against; it is not kept.
FP16 = "fp16"
# ONNX Runtime's form, used if the engine cannot run here.
PORTABLE = "portable"
# Earlier steps of a PyTorch module: after pruning, and with its weights in INT8.
PRUNED = "pruned"
WEIGHTS_INT8 = "weights_int8"

# Titles for people.
TITLES = {
    FLOAT: "float",
    TENSORRT_FORM: "TensorRT form",
    ENGINE: "engine",
    ALSO: "second engine",
    FP16: "FP16",
    PORTABLE: "portable form",
    PRUNED: "pruned",
    WEIGHTS_INT8: "weights in INT8",
}


def in_a_sentence(name: str) -> str:
    """Return a network's title in running text; `name` is one of the above."""
    said = {TENSORRT_FORM: "TensorRT's form", ENGINE: "the engine", PORTABLE: "the portable form"}
    return said.get(name, TITLES[name])
