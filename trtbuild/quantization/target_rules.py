"""Nodes that a target runs in float despite Q/DQ, or cheaper in float; see `trtbuild.target`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbuild.model.operators import weight_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from trtbuild.target import Target

__all__ = ["pool_reason", "why_layer_is_float", "why_pool_is_float"]

# Targets with a list of windows average in INT8 over two axes only, not over one or three.
_SPATIAL_AXES = 2


def why_layer_is_float(node: ir.Node, target: Target) -> str | None:
    """Return why a layer with a constant weight stays in float on `target`; None if it runs in INT8."""
    weight = node.inputs[1]
    shape = weight.shape if weight is not None else None
    dims = tuple(size for size in shape if isinstance(size, int)) if shape is not None else ()
    if node.op_type == "ConvTranspose":
        return _said(target, _why_transposed(node, target))
    if node.op_type == "Conv" and not target.convolution:
        return _said(target, "Conv does not run in INT8")
    if node.op_type == "Conv" and len(dims) > 2:
        return _said(target, _why_groups(node, dims, target))
    axis = weight_axis(node, len(dims))
    if node.op_type in ("Gemm", "MatMul") and axis is not None:
        return _said(target, _why_few(dims[axis], target))
    return None


def why_pool_is_float(node: ir.Node, target: Target) -> str | None:
    """Return why an averaging pool stays in float on `target`; None if it runs in INT8."""
    windows = target.average_pool_windows
    if node.op_type != "AveragePool" or windows is None:
        return None
    sizes = node.attributes.get_ints("kernel_shape", ())
    strides = node.attributes.get_ints("strides", (1,) * len(sizes))
    if len(sizes) == _SPATIAL_AXES and set(zip(sizes, strides, strict=False)) <= windows:
        return None
    window = "x".join(map(str, sizes))
    step = "x".join(map(str, strides))
    return _said(target, f"an average over {window} with stride {step} runs in float")


def pool_reason(node: ir.Node, target: Target) -> str:
    """Return why an averaging pool between INT8 layers reads through Q/DQ."""
    if node.op_type == "GlobalAveragePool" and not target.global_average:
        return f"target {target.name}: reads the INT8 values between INT8 layers, and averages in float"
    return "pooling between INT8 layers"


def _said(target: Target, why: str | None) -> str | None:
    return why and f"target {target.name}: {why}"


def _why_transposed(node: ir.Node, target: Target) -> str | None:
    if not target.conv_transpose:
        return "ConvTranspose gains nothing in INT8"
    pads = node.attributes.get_ints("pads", ())
    if any(pads) and not target.padded_conv_transpose:
        return "ConvTranspose with padding does not run in INT8"
    return None


def _why_groups(node: ir.Node, weight: Sequence[int], target: Target) -> str | None:
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        return None
    read, made = weight[1], weight[0] // groups
    if (read, made) == (1, 1) and target.depthwise:
        return None
    if read % target.group_input_multiple:
        return _why_channels("read", read, target.group_input_multiple)
    if made % target.group_output_multiple:
        return _why_channels("make", made, target.group_output_multiple)
    return None


def _why_channels(what: str, count: int, multiple: int) -> str:
    channels = f"{count} channel{'s' * (count > 1)}"
    return f"its groups {what} {channels}, and INT8 kernels {what} multiples of {multiple}"


def _why_few(outputs: int, target: Target) -> str | None:
    if outputs >= target.fewest_outputs:
        return None
    return f"a product with {outputs} output{'s' * (outputs > 1)} costs less in float"
