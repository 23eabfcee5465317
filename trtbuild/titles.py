"""The names of the networks that are compared and timed in a build, and what people read for them."""

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

# The names under which networks are compared and timed.
FLOAT = "float"
TENSORRT_FORM = "tensorrt_form"
ENGINE = "engine"
ALSO = "also"
# An engine in FP16 that INT8 is timed against; it is not kept.
FP16 = "fp16"
# ONNX Runtime's form, where the engine itself cannot run here.
PORTABLE = "portable"
# The steps of a PyTorch module before that: what is left after pruning, and with its weights in INT8.
PRUNED = "pruned"
WEIGHTS_INT8 = "weights_int8"

# What people read for them.
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
    """Return what a network is called in running text; `name` is one of the above."""
    said = {TENSORRT_FORM: "TensorRT's form", ENGINE: "the engine", PORTABLE: "the portable form"}
    return said.get(name, TITLES[name])
