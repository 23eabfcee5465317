"""Multiply-accumulates and parameters of a module.

Counted on the graph of ``torch.export``, so functional attention counts and a norm does not (it is
folded). One sample: the batch is divided out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import ModelError
from trtbuild.pytorch.aten import calls, capture, name_of
from trtbuild.pytorch.fold.layers import LayerCall

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Node

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = ["Cost", "cost_of", "count_cost"]

_MATRIX_PRODUCTS = frozenset(("matmul", "mm", "bmm"))


@dataclass(frozen=True)
class Cost:
    """What one sample takes: `macs` multiply-accumulates (None if unknown), `parameters` values."""

    macs: int | None
    parameters: int


def count_cost(module: nn.Module, inputs: BoundInputs) -> Cost:
    """Count convolutions, linear layers, matrix products and attention; everything else is free."""
    try:
        program = capture(module, inputs)
    except ModelError:
        return Cost(None, sum(tensor.numel() for tensor in module.parameters()))
    return cost_of(program, module, inputs)


def cost_of(program: ExportedProgram, module: nn.Module, inputs: BoundInputs) -> Cost:
    """`count_cost` for a module whose graph is at hand."""
    parameters = sum(tensor.numel() for tensor in module.parameters())
    batch = max(inputs.specs[0].dims[0] if inputs.specs and inputs.specs[0].dims else 1, 1)
    return Cost(sum(_macs(node) for node in calls(program)) // batch, parameters)


def _macs(node: Node) -> int:
    layer = LayerCall.of(node)
    if layer is not None:
        weight = _dims(layer.weight)
        # Every output value takes one product per weight of its channel; a transposed convolution
        # spreads every input value over the weights of its channel instead.
        values = _dims(layer.input) if layer.transposed else _dims(node)
        return math.prod(values) * math.prod(weight[1:])
    name = name_of(node)
    if name in _MATRIX_PRODUCTS:
        return math.prod(_dims(node)) * _dims(node.args[0])[-1]
    if name == "addmm":
        return math.prod(_dims(node)) * _dims(node.args[1])[-1]
    if name == "scaled_dot_product_attention":
        query, key = _dims(node.args[0]), _dims(node.args[1])
        return 2 * math.prod(query) * key[-2]
    return 0


def _dims(node: Any) -> tuple[int, ...]:
    return tuple(int(dim) for dim in node.meta["val"].shape)
