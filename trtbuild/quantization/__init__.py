"""Places and inserts Q/DQ: TensorRT's explicit form, and the form that ONNX Runtime runs fast."""

from __future__ import annotations

from trtbuild.plan import (
    Consumer,
    Placement,
    Plan,
    QuantParams,
    WeightPoint,
    symmetric,
)
from trtbuild.quantization.by_ranges import place_by_ranges, say_without_range
from trtbuild.quantization.insert import insert
from trtbuild.quantization.onnxruntime_placement import place_portable, unsigned
from trtbuild.quantization.placement import check_floats, place
from trtbuild.quantization.ranges import plan_with_ranges
from trtbuild.quantization.stage import (
    insert_qdq,
    portable_form,
    portable_outputs,
    portable_placement,
    watched_by_all_targets,
    watched_tensors,
)
from trtbuild.quantization.weights import quantize_weight, weight_scales

__all__ = [
    "Consumer",
    "Placement",
    "Plan",
    "QuantParams",
    "WeightPoint",
    "check_floats",
    "insert",
    "insert_qdq",
    "place",
    "place_by_ranges",
    "place_portable",
    "plan_with_ranges",
    "portable_form",
    "portable_outputs",
    "portable_placement",
    "quantize_weight",
    "say_without_range",
    "symmetric",
    "unsigned",
    "watched_by_all_targets",
    "watched_tensors",
    "weight_scales",
]
