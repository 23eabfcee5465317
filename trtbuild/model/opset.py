"""The opset and IR version of a network: raised by the onnx package's converter, lowered here.

Opset 18 made the axes of reductions an input, and gave Split an attribute for the number of outputs.
Lowering to 17 undoes both; all else that opset 17 does not have is refused by name.
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

# The oldest IR version that ONNX Runtime and TensorRT read at opset 13 and newer.
MODERN_IR = 8
# The first IR version in which weights need not be graph inputs.
WEIGHTS_WITHOUT_INPUTS = 4

# Larger weights are not passed to the converter, which needs shapes, axes and scales only. So no network
# meets the size limit of a protobuf message.
_LARGEST_OPERAND = 64


def opset_of(model: ir.Model) -> int:
    """Return the version of the ONNX operator set that `model` imports; 0 where it imports none."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def raise_opset(model: ir.Model, target: int) -> None:
    """Convert `model` to opset `target` in place, without loading its weights.

    The dims of inner tensors are dropped: `trtbuild.model.inference` infers them again.

    Raises:
        ModelError: the converter cannot convert an operator; the message is the converter's, and `model` does
            not change.
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
    """Return `proto`, read from `path`, at opset `target`; weights are no longer graph inputs.

    Raises:
        ModelError: the converter cannot convert an operator of this network.
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


# The first opset whose Scan has no batch axis.
_SCAN_WITHOUT_BATCH = 9
# The last opset whose Resize has one fixed coordinate rule, without an attribute.
_RESIZE_WITH_ONE_RULE = 10


def _converted(proto: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """Return `proto` converted by ONNX's converter, and repair what the converter misses.

    Resize before opset 11 had one coordinate rule, which later opsets call ``asymmetric``. The converter
    leaves the newer default in place, which shifts the pixels.

    Raises:
        ModelError: the converter cannot convert an operator; the message is the converter's.
    """
    source = next(o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS)
    check_scans(proto_nodes(proto.graph), source, target)
    try:
        converted = version_converter.convert_version(proto, target)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, InferenceError) as error:
        raise ModelError(first_line(error)) from error
    converted.functions.extend(proto.functions)  # the converter drops them; each has its own opset
    del converted.graph.value_info[:]  # of the old opset; later stages infer their own
    converted.ir_version = max(converted.ir_version, MODERN_IR)
    keep_old_coordinates(proto_nodes(converted.graph), source)
    return converted


def check_scans(nodes: Iterable[onnx.NodeProto], source: int, target: int) -> None:
    """Check that no Scan has another meaning in opset `target` than in `source`.

    Raises:
        ModelError: one has; the converter would not change it.
    """
    if source < _SCAN_WITHOUT_BATCH <= target:
        scans = [node for node in nodes if node.op_type == "Scan" and not node.domain]
        if scans:
            raise ModelError(
                f"Scan '{scans[0].name}' has a batch axis in opset {source}, and none later"
            )


def keep_old_coordinates(nodes: Iterable[onnx.NodeProto], source: int) -> None:
    """Write the old coordinate rule into each Resize of opset `source`, in place."""
    if source <= _RESIZE_WITH_ONE_RULE:
        for node in nodes:
            if node.op_type == "Resize" and node.domain in ONNX_DOMAINS:
                _use_old_coordinates(node)


def _take_weights_out(proto: onnx.ModelProto, path: Path) -> list[onnx.TensorProto]:
    """Turn large initializers into inputs and return them; load small ones that lie in another file."""
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
    """Remove `weights` from the graph inputs."""
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, 4)  # the first in which weights need not be inputs


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
        ModelError: opset 17 does not have an operator, or a form of it.
    """
    for node in model.graph.all_nodes():
        if node.op_type in _NEW_IN_18:
            raise ModelError(
                f"'{node.name}' is a {node.op_type}, which opset 17 does not have. Export with opset 18."
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
            raise ModelError(f"'{node.name}' resizes with {name}, which opset 17 does not have.")
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
