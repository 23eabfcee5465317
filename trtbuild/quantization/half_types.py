"""Which inputs and outputs of an operator may be FP16, by ONNX's own definitions."""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir

__all__ = ["takes_half"]

_FLOAT, _HALF = "tensor(float)", "tensor(float16)"


def takes_half(node: ir.Node, index: int | None = None) -> bool:
    """Whether a node may compute in FP16; with an index, whether that input may be FP16.

    A node may when every float output may be FP16, and at least one of its float inputs; inputs that may
    not, such as the scales of Resize, stay float.
    """
    opset = node.graph.opset_imports.get(node.domain, 0) if isinstance(node.graph, ir.Graph) else 0
    allowed = _definition(node.op_type, node.domain, opset)
    if allowed is None:
        return False
    inputs, outputs = allowed
    if index is not None:
        return _at(inputs, index)
    floats = [
        i for i, v in enumerate(node.inputs) if v is not None and v.dtype == ir.DataType.FLOAT
    ]
    answers = [i for i, v in enumerate(node.outputs) if v.dtype == ir.DataType.FLOAT]
    if not floats and node.op_type not in ("Cast", "DequantizeLinear"):
        return not answers  # what makes floats of other things is told the type by an attribute
    return all(_at(outputs, i) for i in answers) and (
        not floats or any(_at(inputs, i) for i in floats)
    )


def _at(allowed: tuple[bool, ...], index: int) -> bool:
    """The entry for a formal parameter; the last one repeats (variadic)."""
    return bool(allowed) and allowed[min(index, len(allowed) - 1)]


@cache
def _definition(
    op_type: str, domain: str, opset: int
) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """For each formal input and output, whether FP16 is allowed; None for an unknown operator."""
    try:
        schema = onnx.defs.get_schema(op_type, opset or onnx.defs.onnx_opset_version(), domain)
    except onnx.defs.SchemaError:
        return None
    types = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}

    def allows(type_name: str) -> bool:
        return _HALF in types.get(type_name, {type_name})

    return (
        tuple(allows(formal.type_str) for formal in schema.inputs),
        tuple(allows(formal.type_str) for formal in schema.outputs),
    )
