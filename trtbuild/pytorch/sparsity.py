"""2:4 sparsity: of every four consecutive input channels at most two weights are not zero.

That is the pattern of NVIDIA's sparse tensor cores (TensorRT's flag SPARSE_WEIGHTS), separately for every
output channel and kernel position. The input channels are axis 1 of Conv, Linear and Gemm
(transposed B), and axis 0 of ConvTranspose and of the right operand of MatMul. Grouping a convolution's
flattened weights in fours is a different pattern, which no kernel uses.

The pattern survives folding (which scales whole output channels) and symmetric INT8 rounding (zero stays
zero). It does not survive removing input channels, or an optimizer step without the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import prune

from trtbuild.errors import OptionError
from trtbuild.model.two_four import has_two_four, input_channel_axis
from trtbuild.pytorch.layers import LAYERS, TRANSPOSED, match_layers
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = [
    "NodeSparsity",
    "SparseLayer",
    "check_two_four",
    "make_two_four",
    "two_four_mask",
]


WORTH_CHANNELS = 256
"""NVIDIA's engineers expect a sparse tactic to win from about this many input and output channels."""


@dataclass(frozen=True)
class SparseLayer:
    """Result for one layer.

    Attributes:
        path: module path.
        sparse: whether it has the pattern now.
        worth: whether it is large enough that sparse kernels usually win.
        reason: why it stayed dense, or empty.
    """

    path: str
    sparse: bool
    worth: bool
    reason: str = ""


@dataclass(frozen=True)
class NodeSparsity:
    """One weighted ONNX node.

    Attributes:
        node: its name.
        op_type: its operator.
        holds: whether its weights have the pattern.
        zero_share: share of zeros in its weights.
    """

    node: str
    op_type: str
    holds: bool
    zero_share: float


def two_four_mask(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Return ones at the two largest magnitudes of every four consecutive values along `axis`, else zeros.

    Exactly two are kept even if magnitudes are equal. The size of `axis` must be divisible by 4.
    """
    moved = weight.detach().movedim(axis, -1)
    fours = moved.reshape(-1, 4).abs().float()
    kept = torch.zeros_like(fours).scatter_(1, fours.topk(2).indices, 1.0)
    return kept.reshape(moved.shape).movedim(-1, axis).contiguous()


def make_two_four(module: nn.Module, layers: Sequence[str] = ("*",)) -> tuple[SparseLayer, ...]:
    """Mask every eligible layer that matches, in place; the masks stay during fine-tuning.

    Make them permanent after fine-tuning (`trtbuild.pytorch.masks.make_masks_permanent`); the export does so
    anyway.

    Raises:
        OptionError: a pattern matches no layer, or no layer is eligible.
    """
    found = []
    for path, layer in match_layers(module, layers, LAYERS).items():
        inputs, outputs = _per_group(layer)
        reason = ""
        if getattr(layer, "groups", 1) > 1 and inputs == 1:
            reason = "it is depthwise: there are no four input channels"
        elif inputs % 4:
            reason = f"its {counted(inputs, 'input channel')} cannot be divided by 4"
        elif not {"weight", "weight_orig"} & set(layer._parameters):
            reason = "its weight is computed"
        if not reason:
            mask = two_four_mask(layer.weight, 0 if isinstance(layer, TRANSPOSED) else 1)
            prune.custom_from_mask(layer, "weight", mask)
        worth = min(inputs, outputs) >= WORTH_CHANNELS
        found.append(SparseLayer(path, not reason, worth, reason))
    if not any(layer.sparse for layer in found):
        raise OptionError(f"no layer can be 2:4 sparse: '{found[0].path}': {found[0].reason}.")
    return tuple(found)


def _per_group(layer: nn.Module) -> tuple[int, int]:
    """The channels that each group of a layer reads and makes."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels // layer.groups, layer.out_channels // layer.groups


def check_two_four(model: ir.Model) -> tuple[NodeSparsity, ...]:
    """Check the pattern in every node with constant weights: Conv, ConvTranspose, Gemm, MatMul."""
    found = []
    for node in model.graph.all_nodes():
        axis = input_channel_axis(node)
        weight = node.inputs[1] if axis is not None else None
        if axis is None or weight is None or weight.const_value is None:
            continue
        values = weight.const_value.numpy()
        holds = has_two_four(values, axis)
        found.append(NodeSparsity(str(node.name), node.op_type, holds, float((values == 0).mean())))
    return tuple(found)
