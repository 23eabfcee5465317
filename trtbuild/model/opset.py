"""The opset and IR version of a network: raised by the converter of the onnx package, lowered by ours.

From 17 to 18 reductions took their axes as an input, and Split the number of its outputs as an
attribute. Everything else that a network of 18 may use and 17 has not is refused by name.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import version_converter
from onnx.shape_inference import InferenceError

from trtbuild.errors import ModelError, first_line
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.outside_weights import read_weight
from trtbuild.model.traversal import proto_nodes
from trtbuild.model.writing import without_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

__all__ = [
    "MODERN_IR",
    "WEIGHTS_WITHOUT_INPUTS",
    "check_scans",
    "keep_old_coordinates",
    "lower_to_17",
    "opset_of",
    "raise_opset",
    "raise_proto_opset",
]

# The oldest IR version that ONNX Runtime and TensorRT read with opset 13 and newer.
MODERN_IR = 8
# The first IR version in which a weight need not be an input, too.
WEIGHTS_WITHOUT_INPUTS = 4

# Weights of more elements than this are none of the converter's business: it looks at shapes, axes and
# scales only. They stay outside, so that no size limit of a protobuf message is met.
_LARGEST_OPERAND = 64


def opset_of(model: ir.Model) -> int:
    """Return the version of the ONNX operator set that `model` imports; 0 where it imports none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def raise_opset(model: ir.Model, target: int) -> None:
    """Convert `model` to opset `target` in place, its weights left where they are.

    Dims of inner tensors are forgotten: `trtbuild.model.inference` finds them again.

    Raises:
        ModelError: the converter knows no way for an operator; the message is its own, and `model` is as
            it was.
    """
    detached = without_weights(model)
    converted = _converted(detached.proto, target)
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, InferenceError) as error:
        raise ModelError(first_line(error)) from error
    graph = ir.from_proto(converted).graph
    for value in list(graph.inputs):
        tensor = detached.weights.get(value.name or "")
        if tensor is not None:
            graph.inputs.remove(value)
            value.const_value = tensor
            graph.register_initializer(value)
    model.graph = graph
    model.ir_version = converted.ir_version


def raise_proto_opset(proto: onnx.ModelProto, target: int, path: Path) -> onnx.ModelProto:
    """Return `proto`, read from `path`, at opset `target`; weights are no longer among its inputs.

    Raises:
        ModelError: the converter knows no way for an operator of this network.
    """
    source = next(o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS)
    _keep_inputs(proto, {tensor.name for tensor in proto.graph.initializer})
    weights = _take_weights_out(proto, path)
    try:
        converted = _converted(proto, target)
    except ModelError as error:
        raise ModelError(
            f"'{path}' has opset {source}, INT8 needs {target} here, and raising it failed: {error}. "
            "Export the network again with opset 19."
        ) from error
    _keep_inputs(converted, {tensor.name for tensor in weights})
    converted.graph.initializer.extend(weights)
    return converted


# The first opset whose Scan has no batch axis of its own.
_SCAN_WITHOUT_BATCH = 9
# The last opset whose Resize has one rule of coordinates, and no attribute for it.
_RESIZE_WITH_ONE_RULE = 10


def _converted(proto: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """Return what ONNX's converter makes of `proto`, with what it leaves out.

    Resize before opset 11 had one rule of coordinates, which later opsets call ``asymmetric``; the
    converter leaves the newer default in place and so moves the pixels.

    Raises:
        ModelError: the converter knows no way for an operator; the message is its own.
    """
    source = next(o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS)
    check_scans(proto_nodes(proto.graph), source, target)
    try:
        converted = version_converter.convert_version(proto, target)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, InferenceError) as error:
        raise ModelError(first_line(error)) from error
    converted.functions.extend(proto.functions)  # left out; each has its own opset
    del converted.graph.value_info[:]  # inferred on the way; later stages infer their own
    converted.ir_version = max(converted.ir_version, MODERN_IR)
    keep_old_coordinates(proto_nodes(converted.graph), source)
    return converted


def check_scans(nodes: Iterable[onnx.NodeProto], source: int, target: int) -> None:
    """Do nothing where no Scan would mean something else in opset `target` than in `source`.

    Raises:
        ModelError: one would: the converter leaves it as it is.
    """
    if source < _SCAN_WITHOUT_BATCH <= target:
        scans = [node for node in nodes if node.op_type == "Scan" and not node.domain]
        if scans:
            raise ModelError(
                f"Scan '{scans[0].name}' has a batch axis in opset {source}, and none later"
            )


def keep_old_coordinates(nodes: Iterable[onnx.NodeProto], source: int) -> None:
    """Let each Resize that was written for opset `source` say, in place, how it counts coordinates."""
    if source <= _RESIZE_WITH_ONE_RULE:
        for node in nodes:
            if node.op_type == "Resize" and node.domain in ONNX_DOMAINS:
                _use_old_coordinates(node)


def _take_weights_out(proto: onnx.ModelProto, path: Path) -> list[onnx.TensorProto]:
    """Make large initializers inputs and answer them; load small ones that lie in another file."""
    graph = proto.graph
    large = [tensor for tensor in graph.initializer if _num_elements(tensor) > _LARGEST_OPERAND]
    small = [tensor for tensor in graph.initializer if _num_elements(tensor) <= _LARGEST_OPERAND]
    for tensor in small:
        if onnx.external_data_helper.uses_external_data(tensor):
            read_weight(tensor, path)
    del graph.initializer[:]
    graph.initializer.extend(small)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
    )
    return large


def _keep_inputs(proto: onnx.ModelProto, weights: Collection[str]) -> None:
    """Take `weights` out of the inputs."""
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, 4)  # the first version that allows it


def _num_elements(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def _use_old_coordinates(node: onnx.NodeProto) -> None:
    present = {attribute.name for attribute in node.attribute}
    for name, value in (
        ("coordinate_transformation_mode", "asymmetric"),
        ("nearest_mode", "floor"),
    ):
        if name not in present:
            node.attribute.append(onnx.helper.make_attribute(name, value))


_NEW_IN_18 = frozenset(("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im",
                        "GroupNormalization", "Mish"))  # fmt: skip
_REDUCTIONS = frozenset(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
                         "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"))  # fmt: skip


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
