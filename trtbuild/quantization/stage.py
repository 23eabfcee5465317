"""The quantization stage: adds the Q/DQ network to an artifact with ranges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.artifact import Artifact, Record
from trtbuild.errors import InputError
from trtbuild.model.graph_library import ir
from trtbuild.model.traversal import nodes_by_name
from trtbuild.plan import (
    ANYWHERE,
    GroupKind,
    Placement,
    PlacementRequest,
    Plan,
    PortableChoice,
    QuantParams,
    symmetric,
)
from trtbuild.quantization.by_ranges import place_by_ranges
from trtbuild.quantization.insert import insert
from trtbuild.quantization.onnxruntime_placement import (
    integer_biases,
    place_portable,
    unsigned,
)
from trtbuild.quantization.output_channels import channel_outputs, with_steps, without_rounding
from trtbuild.quantization.placement import place, place_for
from trtbuild.quantization.ranges import plan_with_ranges
from trtbuild.quantization.rounded_weights import of_each_weight, own_scales
from trtbuild.target import TARGETS, installed_target
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibrators import Calibration, TensorRange

__all__ = [
    "insert_qdq",
    "portable_form",
    "portable_outputs",
    "portable_placement",
    "watched_by_all_targets",
    "watched_tensors",
]

# With this zero point, uint8 represents the values of signed INT8.
_MIDDLE = 128


def watched_tensors(model: ir.Model, request: PlacementRequest = ANYWHERE) -> tuple[str, ...]:
    """Return the names of the tensors whose ranges TensorRT's form and the portable form need, sorted.

    From these ranges `plan_with_ranges` derives those for any other choice of groups in float.

    Args:
        model: the float network.
        request: what stays in float, and the compiler to place Q/DQ for.

    Raises:
        OptionError: a pattern matches nothing, or there is no group of a name.
        ModelError: the network has Q/DQ already, or a weight holds NaN or infinity.
    """
    placement = place(model, request)
    _check_weights(model, [placement])
    return tuple(sorted(_watched(model, placement)))


def watched_by_all_targets(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the tensors whose ranges any target needs, sorted.

    Raises:
        ModelError: the network has Q/DQ already, or a weight holds NaN or infinity.
    """
    # targets that differ only in name are placed once; equal placements of others are dropped
    alike = {replace(target, name="", title=""): target for target in TARGETS.values()}
    placements = place_for(model, alike.values())
    placements = [one for at, one in enumerate(placements) if one not in placements[:at]]
    _check_weights(model, placements)
    return tuple(sorted(set().union(*(_watched(model, one) for one in placements))))


def _watched(model: ir.Model, placement: Placement) -> set[str]:
    portable = place_portable(model, placement)
    return {*placement.observed, *portable.observed, *_parts(model, placement)}


def _parts(model: ir.Model, placement: Placement) -> set[str]:
    """Parts of Concats that are INT8 in ONNX Runtime's form alone, needed to check if one scale fits all."""
    nodes = nodes_by_name(model.graph)
    concats = (
        nodes[group.name]
        for group in placement.groups
        if group.kind is GroupKind.KERNEL and group.int8 and group.op_type == "Concat"
    )
    parts = (value for node in concats for value in node.inputs)
    return {value.name for value in parts if value is not None and value.name}


def _check_weights(model: ir.Model, placements: Sequence[Placement]) -> None:
    nodes, weights = nodes_by_name(model.graph), {}
    for point in (point for one in placements for point in one.weights):
        weight = nodes[point.node].inputs[point.index]
        assert weight is not None
        weights[point] = weight
    of_each_weight(lambda point: own_scales(weights[point], point.axis), weights)


def insert_qdq(artifact: Artifact, request: PlacementRequest | None = None) -> Artifact:
    """Write TensorRT's explicit Q/DQ form of the artifact's network into `Artifact.quantized`.

    Args:
        artifact: a calibrated artifact.
        request: what stays in float, and the compiler to place Q/DQ for; None for the artifact's own.

    Raises:
        OptionError: a pattern matches nothing, or there is no group of a name.
        ModelError: the network has Q/DQ already, or a weight holds NaN or infinity.
        InputError: a tensor that needs a range has none, or all tensors were always zero.
    """
    calibration = _calibration(artifact)
    request = artifact.request if request is None else request
    target = request.target or installed_target()
    request = replace(request, target=target)
    placement, dead = place_by_ranges(artifact.model, calibration, request)
    plan = plan_with_ranges(artifact.model, placement, calibration, symmetric_range)
    int8 = [decision.node for decision in placement.decisions if decision.int8]
    record = Record(
        "quantize",
        f"{counted(len(placement.weights), 'weighted layer')} in INT8, "
        f"{counted(len(plan.params), 'activation')} through Q/DQ",
        {
            "target": target.name,
            "float_patterns": list(request.patterns),
            "float_groups": sorted(request.groups),
            "int8_nodes": int8,
            "without_range": dict(dead),
        },
    )
    return artifact.having(
        record,
        request=request,
        quantized=insert(artifact.model, plan),
        decisions=placement.decisions,
        placement=placement,
    )


def portable_form(artifact: Artifact) -> ir.Model:
    """Return the form that ONNX Runtime runs in INT8 kernels, from the same ranges and choice of layers.

    Raises:
        InputError: the artifact has not been quantized, or a range is missing.
    """
    if artifact.placement is None:
        if artifact.quantized is not None:
            # it was given quantized, and ONNX Runtime runs Q/DQ of any kind
            return artifact.quantized
        raise InputError(f"'{artifact.name}' has not been quantized.")
    model, choice = artifact.model, artifact.portable or PortableChoice()
    placement, plan = _portable_plan(artifact)
    if choice.same_grid:
        plan = replace(plan, params={**plan.params, **_on_the_same_grid(artifact, placement, plan)})
    possible = portable_outputs(artifact) if choice.steps or choice.in_float else frozenset()
    plan = without_rounding(model, plan, choice.in_float & possible)
    steps = {name: own for name, own in choice.steps.items() if name in possible - choice.in_float}
    model, plan = with_steps(model, plan, steps)
    placed = replace(placement, consumers=plan.consumers, weights=plan.weights)
    return insert(model, replace(plan, int32_biases=integer_biases(model, placed)))


def portable_placement(artifact: Artifact) -> Placement:
    """Return where Q/DQ go in ONNX Runtime's form of a quantized artifact, by its `PortableChoice`."""
    placement, choice = artifact.placement, artifact.portable or PortableChoice()
    assert placement is not None
    kernels = [group.name for group in placement.groups if group.kind is GroupKind.KERNEL]
    return place_portable(artifact.model, placement, () if choice.kernels else kernels)


def _portable_plan(artifact: Artifact) -> tuple[Placement, Plan]:
    placement = portable_placement(artifact)
    return placement, plan_with_ranges(artifact.model, placement, _calibration(artifact), unsigned)


def portable_outputs(artifact: Artifact) -> frozenset[str]:
    """Return the tensors of a quantized artifact that `PortableChoice` can choose for."""
    assert artifact.placement is not None
    placement, plan = _portable_plan(artifact)
    placed = replace(placement, consumers=plan.consumers)
    return channel_outputs(artifact.model, placed, artifact.placement)


def _on_the_same_grid(
    artifact: Artifact, portable: Placement, plan: Plan
) -> dict[str, QuantParams]:
    """TensorRT's scales for tensors with both signs that both forms round, and for those sharing a scale."""
    assert artifact.placement is not None
    theirs = plan_with_ranges(
        artifact.model, artifact.placement, _calibration(artifact), symmetric_range
    )
    both = theirs.params.keys() & portable.roots.keys()
    scales = {portable.roots[name]: theirs.params[name].scale for name in both}
    return {
        name: QuantParams(scales[roots], _MIDDLE, ir.DataType.UINT8)
        for name, roots in portable.roots.items()
        if roots in scales and name in plan.params and plan.params[name].zero_point
    }


def symmetric_range(given: TensorRange) -> QuantParams:
    """Return a range in TensorRT's form: signed INT8, zero point 0."""
    return symmetric(given.amax)


def _calibration(artifact: Artifact) -> Calibration:
    if artifact.calibration is None:
        raise InputError(f"'{artifact.name}' has not been calibrated.")
    return artifact.calibration
