"""Which weighted nodes run in INT8, and why the others do not."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.errors import ModelError, OptionError
from trtbuild.model.constants import constant_tensor, is_constant
from trtbuild.model.operators import RECURRENT, WEIGHTED
from trtbuild.plan import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["float_by_pattern", "select"]

_QUANTIZED = frozenset(
    {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"}
    | {"QLinearConv", "QLinearMatMul", "QuantizeLinear"}
)
_FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


def select(model: ir.Model, float_patterns: Sequence[str]) -> dict[str, Decision]:
    """Decide for every weighted or recurrent node of the main graph.

    Returns:
        Node name -> decision.

    Raises:
        OptionError: a pattern matches no node.
        ModelError: the network holds Q/DQ already.
    """
    _check_is_float(model)
    by_pattern = float_by_pattern(model, float_patterns)
    decisions = {}
    for node in model.graph:
        if node.op_type in WEIGHTED | RECURRENT and node.domain in ("", "ai.onnx"):
            reason = _why_float(node, by_pattern)
            name = node.name or ""
            decisions[name] = Decision(
                name, node.op_type, reason is None, reason or "data and weight through Q/DQ"
            )
    return decisions


def _check_is_float(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type in _QUANTIZED and node.domain in ("", "ai.onnx"):
            raise ModelError(
                f"the network is quantized already: '{node.name}' is a {node.op_type}. "
                "Give the float network that it was made from."
            )


def float_by_pattern(model: ir.Model, patterns: Sequence[str]) -> Mapping[str, str]:
    """Node name -> the first pattern that names it: its name, its op type, or a glob over either.

    Raises:
        OptionError: a pattern matches no node.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        matches = [node.name or "" for node in model.graph if _matches(node, pattern)]
        if not matches:
            raise OptionError(
                f"--float '{pattern}' matches no node and no op type of the network; "
                "`trtbuild quantize --list` prints the names."
            )
        for name in matches:
            found.setdefault(name, pattern)
    return found


def _matches(node: ir.Node, pattern: str) -> bool:
    texts = (node.name or "", node.op_type)
    # Names may hold brackets, which a glob would read as a set: equality comes first.
    return pattern in texts or any(fnmatchcase(text, pattern) for text in texts)


def _why_float(node: ir.Node, by_pattern: Mapping[str, str]) -> str | None:
    pattern = by_pattern.get(node.name or "")
    if pattern is not None:
        return f"kept in float by --float '{pattern}'"
    if node.op_type in RECURRENT:
        return "recurrent layers have no INT8 form in TensorRT"
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return "TensorRT refuses Q/DQ on a grouped transposed convolution"
    if is_constant(node.inputs[0]):
        return "its data input is constant"
    return _why_weight_is_float(node.inputs[1])


def _why_weight_is_float(weight: ir.Value | None) -> str | None:
    content = constant_tensor(weight)
    if content is None:
        return "its second input is computed, not a constant weight"
    if content.dtype not in _FLOAT_TYPES:
        return f"its weight is {content.dtype.name}, not float"
    return None if content.size else "its weight is empty"
