"""2:4 sparsity: of every four consecutive input channels at most two weights are not zero.

That is the pattern of NVIDIA's sparse tensor cores (TensorRT's flag SPARSE_WEIGHTS), for every output
channel and kernel position on its own. The input channels lie on axis 1 of Conv, Linear and Gemm
(transposed B), on axis 0 of ConvTranspose and of the right side of MatMul. Grouping a convolution's
flattened weights in fours is something else and earns nothing.

The pattern survives folding (it scales whole output channels) and symmetric INT8 rounding (zero stays
zero). It does not survive removing input channels, or an optimiser step without the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from trtbuild.errors import OptionError
from trtbuild.pytorch.prune.patterns import match_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["NodeSparsity", "SparseLayer", "check_two_four", "make_two_four", "two_four_mask"]

WORTH_CHANNELS = 256
"""NVIDIA's engineers expect a sparse tactic to win from about this many input and output channels."""

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (*_CONVS, *_TRANSPOSED, nn.Linear)


@dataclass(frozen=True)
class SparseLayer:
    """What became of one layer.

    Attributes:
        path: module path.
        sparse: whether it has the pattern now.
        worth: whether it is large enough for sparse kernels to win, as a rule.
        reason: why it stayed dense, or empty.
    """

    path: str
    sparse: bool
    worth: bool
    reason: str = ""


@dataclass(frozen=True)
class NodeSparsity:
    """The pattern in one weighted ONNX node: `holds`, and the share of zeros in its weights."""

    node: str
    op_type: str
    holds: bool
    zeros: float


def two_four_mask(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Ones at the two largest magnitudes of every four consecutive values along `axis`, else zeros.

    Equal magnitudes are still two of four. The size of `axis` must be divisible by 4.
    """
    moved = weight.detach().movedim(axis, -1)
    fours = moved.reshape(-1, 4).abs().float()
    kept = torch.zeros_like(fours).scatter_(1, fours.topk(2).indices, 1.0)
    return kept.reshape(moved.shape).movedim(-1, axis).contiguous()


def make_two_four(module: nn.Module, layers: Sequence[str] = ("*",)) -> tuple[SparseLayer, ...]:
    """Mask every eligible matching layer, in place; the masks hold through fine-tuning.

    Make them permanent with `make_masks_permanent` after fine-tuning; the export does it anyway.

    Raises:
        OptionError: a pattern that matches no layer, or no layer is eligible.
    """
    found = []
    for path, layer in match_layers(module, layers, _LAYERS).items():
        inputs = _inputs_per_group(layer)
        reason = ""
        if getattr(layer, "groups", 1) > 1 and inputs == 1:
            reason = "it is depthwise: there are no four input channels"
        elif inputs % 4:
            reason = f"its {inputs} input channels are not divisible by 4"
        elif not {"weight", "weight_orig"} & set(layer._parameters):
            reason = "its weight is computed"
        if not reason:
            mask = two_four_mask(layer.weight, 0 if isinstance(layer, _TRANSPOSED) else 1)
            prune.custom_from_mask(layer, "weight", mask)
        found.append(SparseLayer(path, not reason, _is_worth(layer), reason))
    if not any(layer.sparse for layer in found):
        raise OptionError(f"no layer can be 2:4 sparse: '{found[0].path}': {found[0].reason}.")
    return tuple(found)


def _inputs_per_group(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return int(layer.in_features)
    return int(layer.in_channels // layer.groups)


def _is_worth(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return bool(min(layer.in_features, layer.out_features) >= WORTH_CHANNELS)
    return bool(min(layer.in_channels, layer.out_channels) // layer.groups >= WORTH_CHANNELS)


def check_two_four(model: ir.Model) -> tuple[NodeSparsity, ...]:
    """Look for the pattern in every node with constant weights: Conv, ConvTranspose, Gemm, MatMul."""
    found = []
    for node in model.graph.all_nodes():
        axis = _input_axis(node)
        weight = node.inputs[1] if axis is not None else None
        if axis is None or weight is None or weight.const_value is None:
            continue
        values = weight.const_value.numpy()
        holds = values.shape[axis] % 4 == 0 and _has_pattern(values, axis)
        found.append(NodeSparsity(str(node.name), node.op_type, holds, float((values == 0).mean())))
    return tuple(found)


def _input_axis(node: ir.Node) -> int | None:
    """The axis of a node's weight that its input channels lie on; None for other operators."""
    if len(node.inputs) < 2:
        return None
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 1 if transposed is not None and transposed.as_int() else 0
    return {"Conv": 1, "ConvTranspose": 0, "MatMul": -2}.get(node.op_type)


def _has_pattern(values: np.ndarray, axis: int) -> bool:
    fours = np.moveaxis(values, axis, -1).reshape(-1, 4)
    return bool(((fours != 0).sum(1) <= 2).all())
