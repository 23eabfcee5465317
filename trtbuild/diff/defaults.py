"""Attributes that say what an operator does without them, as some exporters write."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import onnx

from trtbuild.diff.reads import origin
from trtbuild.model.attributes import input_at
from trtbuild.model.constants import constant_tensor
from trtbuild.model.graph_library import ir

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_default"]

# Lists that the schemas give no default for, since their length depends on the rank -> each of their items.
_REPEATED = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}


def is_default(node: ir.Node, name: str, opsets: Mapping[str, int]) -> bool:
    """Return whether an attribute of `node` has the value that it would have if it were left out.

    Args:
        node: a node of a network.
        name: name of one of its attributes.
        opsets: the network's operator sets: domain -> version.
    """
    attribute = node.attributes[name]
    if attribute.is_ref():
        return False
    schema = _defaults(node.op_type, node.domain, opsets.get(node.domain, 0))
    if schema is None or name not in schema:
        return False
    default = schema[name]
    if default is not None:
        return bool(attribute.value == default)
    if name == "kernel_shape":
        return _is_of_weight(node, attribute.value)
    return name in _REPEATED and set(attribute.value) <= {_REPEATED[name]}


@cache
def _defaults(op_type: str, domain: str, version: int) -> dict[str, Any] | None:
    """The optional attributes of an operator with their defaults, None for one without; None if unknown."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    optional = (one for one in schema.attributes.values() if not one.required)
    return {one.name: _value(one.default_value) for one in optional}


def _value(proto: onnx.AttributeProto) -> Any:
    return ir.serde.deserialize_attribute(proto).value if proto.type else None


def _is_of_weight(node: ir.Node, kernel: tuple[int, ...]) -> bool:
    """Whether a convolution's kernel has the size of its weight, which follows from the weight."""
    weight = constant_tensor(origin(input_at(node, 1)))
    return weight is not None and tuple(kernel) == tuple(weight.shape.numpy())[2:]
