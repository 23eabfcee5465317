"""Which nodes stay in float: because of the operator, or by a pattern of the user."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from trtbuild.errors import ModelError, OptionError, did_you_mean
from trtbuild.model.constants import constant_tensor, is_constant
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import ONNX_DOMAINS, RECURRENT
from trtbuild.plan import GRAPH_OUTPUT
from trtbuild.wording import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trtbuild.plan import Group

__all__ = [
    "check_is_float",
    "check_patterns",
    "idle_patterns",
    "matches",
    "no_int8_form",
    "output_group_name",
]

_QUANTIZED = frozenset(
    {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"}
    | {"QLinearConv", "QLinearMatMul", "QuantizeLinear"}
)
_FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
_NAMED = 3


def check_is_float(model: ir.Model) -> None:
    """Check that the network holds no Q/DQ.

    Raises:
        ModelError: it is quantized already.
    """
    for node in model.graph:
        if node.op_type in _QUANTIZED and node.domain in ONNX_DOMAINS:
            raise ModelError(
                f"the network is quantized already: '{node.name}' is a {node.op_type}. "
                "Give the float network that it was made from."
            )


def output_group_name(tensor: str) -> str:
    """Return the name of the group of a network output; the prefix keeps it apart from node names."""
    return f"output {tensor}"


def matches(pattern: str, name: str, op_type: str) -> bool:
    """Return whether `pattern` equals this name or op type, or is a glob that matches either."""
    # Names may hold brackets, which a glob reads as a set, so equality is tested first.
    return pattern in (name, op_type) or any(fnmatchcase(text, pattern) for text in (name, op_type))


def check_patterns(model: ir.Model, patterns: Sequence[str]) -> None:
    """Check that each pattern matches something of the network.

    Raises:
        OptionError: a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(matches(pattern, name, op) for name, op, _ in _nameable(model)):
            known = {text for name, op, _ in _nameable(model) for text in (name, op)}
            raise OptionError(
                f"--float '{pattern}' matches no node and no op type of the network"
                f"{did_you_mean(pattern, known)}; `trtbuild quantize --list` prints the names."
            )


def idle_patterns(
    model: ir.Model, patterns: Sequence[str], groups: Iterable[Group]
) -> dict[str, str]:
    """Return each pattern without effect -> what it matches, which is in float anyway.

    Args:
        model: the network.
        patterns: the user's patterns; each matches something.
        groups: the groups that patterns can keep in float.
    """
    groups = tuple(groups)
    idle = {}
    for pattern in patterns:
        if any(matches(pattern, group.name, group.op_type) for group in groups):
            continue
        found = [text for name, op, text in _nameable(model) if matches(pattern, name, op)]
        idle[pattern] = listed(found, _NAMED)
    return idle


def _nameable(model: ir.Model) -> Iterator[tuple[str, str, str]]:
    """Yield name, op type and description of everything that a pattern can match."""
    for node in model.graph:
        name = node.name or ""
        yield name, node.op_type, f"'{name}' ({node.op_type})"
    for value in model.graph.outputs:
        name = output_group_name(value.name or "")
        yield name, GRAPH_OUTPUT, f"'{name}'"


def no_int8_form(node: ir.Node) -> str | None:
    """Return why a weighted or recurrent node cannot be INT8; None if it can."""
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
