"""Which opset the file gets, and the way down from 18 to 17.

torch's exporter builds opset 18 and above; asked for less it quietly answers 18 for most networks.
From 17 to 18 reductions took their axes as an input, and Split the number of its outputs as an
attribute. Everything else that a network of 18 may use and 17 has not is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from trtbuild.errors import ModelError, OptionError
from trtbuild.pytorch.spec import MAX_OPSET, MIN_OPSET

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_opset", "lower_to_17", "opset_of"]

_NEW_IN_18 = frozenset(("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im",
                        "GroupNormalization", "Mish"))  # fmt: skip
_REDUCTIONS = frozenset(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
                         "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"))  # fmt: skip


def check_opset(opset: int, *, force: bool) -> None:
    """Refuse an opset that the exporter or TensorRT does not handle.

    Raises:
        OptionError: too old, or newer than TensorRT 10 parses and not forced.
    """
    if opset < MIN_OPSET:
        raise OptionError(f"opset {opset} is too old: {MIN_OPSET} to {MAX_OPSET} can be exported.")
    if opset > MAX_OPSET and not force:
        raise OptionError(
            f"opset {opset} is newer than what every TensorRT 10 parses; {MIN_OPSET} to {MAX_OPSET} "
            "are safe. Pass --force-opset to export it all the same."
        )


def opset_of(model: ir.Model) -> int:
    """The opset of ONNX's own operators that the model imports."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def lower_to_17(model: ir.Model) -> None:
    """Rewrite a model of opset 18 for opset 17, in place.

    Raises:
        ModelError: an operator or a form of it that opset 17 has not.
    """
    for node in model.graph.all_nodes():
        if node.op_type in _NEW_IN_18:
            raise ModelError(
                f"'{node.name}' is a {node.op_type}, which opset 17 has not. Export opset 18."
            )
        change = _CHANGES.get("Reduce" if node.op_type in _REDUCTIONS else node.op_type)
        if change is not None:
            change(node)
    model.opset_imports[""] = 17


def _lower_reduction(node: ir.Node) -> None:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    does_nothing = node.attributes.pop("noop_with_empty_axes", None)
    if axes is None:
        if does_nothing is not None and does_nothing.as_int():
            raise ModelError(f"'{node.name}' reduces over no axis; opset 17 would reduce over all.")
        return
    if axes.const_value is None:
        raise ModelError(f"'{node.name}' reduces over axes that are computed; opset 17 cannot.")
    node.attributes["axes"] = ir.AttrInt64s(
        "axes", [int(axis) for axis in axes.const_value.numpy()]
    )
    node.resize_inputs(1)


def _lower_split(node: ir.Node) -> None:
    # Without sizes opset 17 splits evenly; opset 18 also allows a smaller last part.
    count = node.attributes.pop("num_outputs", None)
    if count is None:
        return
    dims = node.inputs[0].shape if node.inputs[0] is not None else None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = dims[axis] if dims is not None else None
    if not isinstance(size, int) or size % count.as_int():
        raise ModelError(f"'{node.name}' splits into parts that opset 17 cannot express.")


def _lower_resize(node: ir.Node) -> None:
    defaults = {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}
    for name, default in defaults.items():
        attribute = node.attributes.pop(name, None)
        if attribute is not None and attribute.value != default:
            raise ModelError(f"'{node.name}' resizes with {name}, which opset 17 has not.")
    if node.attributes.pop("axes", None) is not None:
        raise ModelError(f"'{node.name}' resizes chosen axes, which opset 17 cannot.")


def _lower_pad(node: ir.Node) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        raise ModelError(f"'{node.name}' pads chosen axes, which opset 17 cannot.")
    node.resize_inputs(min(len(node.inputs), 3))


_CHANGES: dict[str, Callable[[ir.Node], None]] = {
    "Reduce": _lower_reduction,
    "Split": _lower_split,
    "Resize": _lower_resize,
    "Pad": _lower_pad,
}
