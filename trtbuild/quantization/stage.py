"""The stage: an artifact with ranges in, the same with its Q/DQ network out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.artifact import Artifact, Record
from trtbuild.errors import InputError
from trtbuild.quantization.insert import insert
from trtbuild.quantization.onnxruntime_placement import (
    difference,
    integer_biases,
    place_portable,
    unsigned,
)
from trtbuild.quantization.plan import Placement, Plan, QuantParams, symmetric
from trtbuild.quantization.tensorrt_placement import place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from calibrators import Calibration, TensorRange

__all__ = ["plan_with_ranges", "portable_form", "quantize", "watched_tensors"]


def watched_tensors(model: ir.Model, float_patterns: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the tensors whose ranges TensorRT's form and the portable form need, sorted.

    Raises:
        OptionError: a pattern matches no node.
    """
    placement = place(model, float_patterns)
    return tuple(sorted(placement.watched | place_portable(model, placement).watched))


def quantize(artifact: Artifact, float_patterns: Sequence[str] = ()) -> Artifact:
    """Write TensorRT's explicit Q/DQ form of the artifact's network into `Artifact.quantized`.

    Raises:
        OptionError: a pattern matches no node.
        InputError: a tensor that needs a range has none, or was always zero.
    """
    placement = place(artifact.model, float_patterns)
    plan = plan_with_ranges(placement, _calibration(artifact), symmetric_range)
    int8 = [decision.node for decision in placement.decisions if decision.quantized]
    record = Record(
        "quantize",
        f"{len(placement.weights)} weighted layers in INT8, {len(plan.params)} activations through Q/DQ",
        {"float_patterns": list(float_patterns), "int8_nodes": int8},
    )
    return artifact.having(
        record,
        quantized=insert(artifact.model, plan),
        decisions=placement.decisions,
        placement=placement,
    )


def portable_form(artifact: Artifact) -> ir.Model:
    """The form that ONNX Runtime runs in INT8 kernels, from the same ranges and the same choice of layers.

    Raises:
        InputError: the artifact has not been quantized, or a range is missing.
    """
    if artifact.placement is None:
        raise InputError(f"'{artifact.name}' has not been quantized.")
    placement = place_portable(artifact.model, artifact.placement)
    plan = plan_with_ranges(placement, _calibration(artifact), unsigned)
    biases = integer_biases(artifact.model, placement)
    return insert(artifact.model, replace(plan, int32_biases=biases))


def symmetric_range(given: TensorRange) -> QuantParams:
    """TensorRT's form of a range: signed, zero point 0."""
    return symmetric(given.amax)


def plan_with_ranges(
    placement: Placement, calibration: Calibration, params: Callable[[TensorRange], QuantParams]
) -> Plan:
    """Turn ranges into scales. A tensor with several roots takes the widest of their ranges.

    Raises:
        InputError: a range is missing, zero or not finite.
    """
    found: dict[str, QuantParams] = {}
    for name, roots in placement.roots.items():
        ranges = [_range(calibration, root) for root in sorted(roots)]
        found[name] = params(max(ranges, key=lambda r: r.amax))
    for name, (total, addend) in placement.differences.items():
        found[name] = difference(found[total], found[addend])
    return Plan(placement.consumers, placement.weights, found)


def _calibration(artifact: Artifact) -> Calibration:
    if artifact.calibration is None:
        raise InputError(f"'{artifact.name}' has not been calibrated.")
    return artifact.calibration


def _range(calibration: Calibration, name: str) -> TensorRange:
    given = calibration.ranges.get(name)
    if given is None:
        raise InputError(
            f"the calibration has no range for the tensor '{name}'; it was made for another network or "
            "other options. Calibrate again."
        )
    if not 0 < given.amax < float("inf"):
        raise InputError(
            f"the tensor '{name}' has the range {given.amax:g}"
            + (": it was zero in every batch" if given.amax == 0 else "")
            + ". Check the data and its preprocessing, or keep its readers in float with --float."
        )
    return given
