"""Repairs what exporters and editors do wrong and ONNX Runtime accepts, while a file is read.

Each repair works in place on the parsed network, does not change what it computes, and returns one sentence
if it changed something.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from trtbuild.errors import ModelError
from trtbuild.model.mask_rows import expand_mask_rows
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.opset import WEIGHTS_WITHOUT_INPUTS, raise_proto_opset
from trtbuild.model.traversal import proto_bodies, proto_graphs, proto_nodes, proto_tensors
from trtbuild.wording import counted, listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "drop_absent_inputs",
    "has_float64_ends",
    "narrow_float64",
    "repair",
    "switch_to_evaluation",
    "with_absent_inputs",
]

_BFLOAT16, _FLOAT64 = onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE
# Attributes of ONNX operators that name a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision")

# Operators whose optional inputs must not have an empty name: TensorRT for RTX 1.7.1 finds an "Invalid Node".
_NONE_ABSENT = frozenset(
    {
        "Conv",
        "DequantizeLinear",
        "Dropout",
        "Gemm",
        "QuantizeLinear",
        "Slice",
        "Split",
        "Squeeze",
        "Trilu",
    }
)

# Operators newer than the network's opset are moved to this domain while the converter raises it.
_SET_ASIDE = "trtbuild.newer"

# Elements. TensorRT does not take a dense weight with more.
_MOST_DENSE = 2**31 - 1


def repair(proto: onnx.ModelProto, path: Path) -> list[str]:
    """Repair `proto` in place.

    Args:
        proto: as parsed; weights may lie in another file.
        path: the file, for messages.

    Returns:
        A sentence for each repair, without a full stop; empty where nothing was wrong.

    Raises:
        ModelError: the opset has to be raised and the converter fails, or a sparse weight is too large.
    """
    _forget_negative_dims(proto.graph)
    found = (
        _name_graphs(proto),
        _forget_empty_types(proto),
        _densify(proto),
        _raise_ir_version(proto),
        _sort_nodes(proto),
        _raise_opset_for_newer_operators(proto, path),
        _compute_in_float32(proto, path),
        _find_output_shapes(proto),
        expand_mask_rows(proto),
    )
    return [sentence for sentence in found if sentence]


def _forget_negative_dims(graph: onnx.GraphProto) -> None:
    """Drop negative dims: some exporters write -1 for unknown, which shape inference takes for a number."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _name_graphs(proto: onnx.ModelProto) -> str:
    unnamed = [graph for graph in proto_graphs(proto.graph) if not graph.name]
    for number, graph in enumerate(unnamed):
        graph.name = "graph" if number == 0 else f"graph_{number}"
    return "a graph had no name and was given one" if unnamed else ""


def _forget_empty_types(proto: onnx.ModelProto) -> str:
    """Drop entries of `value_info` without a type or a shape; without a shape alone they are valid."""
    dropped = 0
    for graph in proto_graphs(proto.graph):
        kept = [value for value in graph.value_info if _says_something(value)]
        dropped += sum(not _has_type(value) for value in graph.value_info)
        if len(kept) != len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)
    return f"{counted(dropped, 'listed inner tensor')} had no type" if dropped else ""


def _has_type(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        return bool(value.type.tensor_type.elem_type != onnx.TensorProto.UNDEFINED)
    return kind is not None


def _says_something(value: onnx.ValueInfoProto) -> bool:
    is_tensor = value.type.HasField("tensor_type")
    return _has_type(value) and (not is_tensor or value.type.tensor_type.HasField("shape"))


def _densify(proto: onnx.ModelProto) -> str:
    names = []
    for graph in proto_graphs(proto.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse))
            names.append(sparse.values.name)
        del graph.sparse_initializer[:]
    return f"the sparse weights {_listed(names)} became dense" if names else ""


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """The dense tensor; the indices of `sparse` are linear, or a row of coordinates for each value."""
    if math.prod(sparse.dims) > _MOST_DENSE:
        raise ModelError(
            f"the sparse weight '{sparse.values.name}' has {math.prod(sparse.dims):.2g} elements, too many "
            "to be made dense; export the network with dense weights."
        )
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _raise_ir_version(proto: onnx.ModelProto) -> str:
    inputs = {value.name for value in proto.graph.input}
    alone = [tensor.name for tensor in proto.graph.initializer if tensor.name not in inputs]
    if proto.ir_version >= WEIGHTS_WITHOUT_INPUTS or not alone:
        return ""
    before, proto.ir_version = proto.ir_version, WEIGHTS_WITHOUT_INPUTS
    return (
        f"IR version {before} needs every weight among the inputs, but {len(alone)} are not; read as "
        f"version {WEIGHTS_WITHOUT_INPUTS}"
    )


def _sort_nodes(proto: onnx.ModelProto) -> str:
    moved = sum(_sort(graph) for graph in proto_graphs(proto.graph))
    return "nodes came before those that they read from, and were sorted" if moved else ""


def _sort(graph: onnx.GraphProto) -> bool:
    """Sort the nodes of one graph topologically, with as few changes of their order as possible."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    reads = [
        (i, makers[name])
        for i, node in enumerate(graph.node)
        for name in _read_by(node)
        if name in makers
    ]
    if all(maker <= reader for reader, maker in reads):
        return False
    waits_for: list[set[int]] = [set() for _ in graph.node]
    for reader, maker in reads:
        waits_for[reader] |= {maker} - {reader}
    order = _order(waits_for)
    if order is None:
        return False  # a cycle: the checker reports it
    nodes = [onnx.NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def _order(waits_for: list[set[int]]) -> list[int] | None:
    """An order of the numbers in which each follows those that it waits for; None for a cycle."""
    readers: dict[int, list[int]] = defaultdict(list)
    for number, needed in enumerate(waits_for):
        for one in needed:
            readers[one].append(number)
    missing = [len(needed) for needed in waits_for]
    order: list[int] = []
    for start in range(len(waits_for)):
        ready = [start] if missing[start] == 0 else []
        while ready:
            number = ready.pop()
            missing[number] = -1
            order.append(number)
            for reader in readers[number]:
                missing[reader] -= 1
            # a reader before `start` was skipped and can go now; one behind it gets its own turn
            ready.extend(r for r in reversed(readers[number]) if missing[r] == 0 and r < start)
    return order if len(order) == len(waits_for) else None


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, also those that its bodies capture."""
    yield from node.input
    for body in proto_bodies(node):
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(name for inner in body.node for name in inner.output)
        for inner in body.node:
            yield from (name for name in _read_by(inner) if name not in own)
        yield from (value.name for value in body.output if value.name not in own)


def switch_to_evaluation(proto: onnx.ModelProto, path: Path) -> str:
    """Switch Dropout off, and let BatchNormalization use its stored statistics, as an engine does.

    Args:
        proto: changed in place.
        path: the file, for messages.

    Returns:
        A sentence about the switched nodes; empty if no node was in training mode.

    Raises:
        ModelError: an output that BatchNormalization has in training mode only is read.
    """
    constants = {t.name: t for t in proto.graph.initializer}
    constants.update(
        {n.output[0]: a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute}
    )
    read = {name for node in proto_nodes(proto.graph) for name in _read_by(node)}
    read.update(value.name for graph in proto_graphs(proto.graph) for value in graph.output)
    changed = []
    for node in proto_nodes(proto.graph):
        if node.domain not in ONNX_DOMAINS or not _trains(node, constants):
            continue
        statistics = [name for name in node.output[1:] if name in read]
        if statistics:
            raise ModelError(
                f"{node.op_type} '{node.name}' of '{path}' is in training mode, and its output "
                f"'{statistics[0]}' is read; export the network in evaluation mode (model.eval())."
            )
        _evaluate_instead(node)
        changed.append(f"{node.op_type} '{node.name or node.output[0]}'")
    if not changed:
        return ""
    return (
        f"{_listed(changed)} in training mode: switched to evaluation mode, which is what an engine "
        "runs; export the network in evaluation mode (model.eval())"
    )


def _trains(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type == "Dropout" and len(node.input) > 2:
        mode = constants.get(node.input[2])
        return mode is not None and bool(numpy_helper.to_array(mode).any())
    if node.op_type == "BatchNormalization":
        # before opset 14, statistics among the outputs mean training
        return len(node.output) > 3 or any(
            attribute.name == "training_mode" and attribute.i for attribute in node.attribute
        )
    return False


def _evaluate_instead(node: onnx.NodeProto) -> None:
    if node.op_type == "Dropout":
        del node.input[2:]
        return
    del node.output[1:]
    kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _raise_opset_for_newer_operators(proto: onnx.ModelProto, path: Path) -> str:
    """Raise the opset until it has every operator: ONNX Runtime takes some operators in any opset."""
    opset = next((one.version for one in proto.opset_import if one.domain in ONNX_DOMAINS), 0)
    kinds = {(node.domain, node.op_type) for node in proto_nodes(proto.graph)}
    firsts = {name: _first_opset(name, opset) for domain, name in kinds if domain in ONNX_DOMAINS}
    newer = {name: first for name, first in firsts.items() if first > opset}
    if not newer or not opset:
        return ""
    target = max(newer.values())
    for node in proto_nodes(proto.graph):
        if node.domain in ONNX_DOMAINS and node.op_type in newer:
            node.domain = _SET_ASIDE  # the converter refuses what the opset does not have
    proto.opset_import.append(onnx.helper.make_opsetid(_SET_ASIDE, 1))
    proto.CopyFrom(raise_proto_opset(proto, target, path))
    for node in proto_nodes(proto.graph):
        if node.domain == _SET_ASIDE:
            node.domain = ""
    kept = [one for one in proto.opset_import if one.domain != _SET_ASIDE]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    return f"opset {opset} does not have {_listed(sorted(newer))}; read as opset {target}"


@functools.cache
def _first_opset(op_type: str, opset: int) -> int:
    """The first opset with the operator if it is newer than `opset`; else 0, also for unknown operators."""
    if onnx.defs.has(op_type, max_inclusive_version=opset):
        return 0
    schemas = onnx.defs.get_all_schemas_with_history()
    found = [one.since_version for one in schemas if one.name == op_type and one.domain == ""]
    return min(found, default=0)


def _compute_in_float32(proto: onnx.ModelProto, path: Path) -> str:
    """Put float32 in the place of bfloat16: every value is kept, sums are rounded less."""
    changed = _put_float32(proto, path, _BFLOAT16)
    return "bfloat16 became float32, its inputs and outputs included" if changed else ""


def has_float64_ends(proto: onnx.ModelProto) -> bool:
    """Return whether an input or an output is of float64."""
    ends = (*proto.graph.input, *proto.graph.output)
    return any(value.type.tensor_type.elem_type == _FLOAT64 for value in ends)


def narrow_float64(proto: onnx.ModelProto, path: Path) -> str:
    """Put float32 in the place of float64, in place, where an input or an output is of float64.

    TensorRT has no float64, and no layer of it runs in INT8. A network that computes some part in float64
    and takes and gives other types stays as it is.

    Args:
        proto: as parsed; weights may be in another file.
        path: of the file, to find those weights.

    Returns:
        A sentence without a full stop; empty if nothing was changed.
    """
    if not has_float64_ends(proto):
        return ""
    _put_float32(proto, path, _FLOAT64)
    return "float64, which TensorRT lacks, became float32, its inputs and outputs included"


def drop_absent_inputs(proto: onnx.ModelProto) -> None:
    """Drop absent optional inputs (empty names) where NVIDIA's parser refuses them at the end of a node.

    For ONNX an empty name equals an input that is not listed. Other operators keep theirs: a calibration file
    knows its network by the digest of the graph, which covers them.
    """
    for node in with_absent_inputs(proto):
        while node.input and not node.input[-1]:
            del node.input[-1]


def with_absent_inputs(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes whose last inputs are absent (empty names) where NVIDIA's parser refuses that."""
    return [
        node
        for node in proto_nodes(proto.graph)
        if node.op_type in _NONE_ABSENT
        and node.domain in ONNX_DOMAINS
        and node.input
        and not node.input[-1]
    ]


def _put_float32(proto: onnx.ModelProto, path: Path, kind: int) -> int:
    """Make float32 of the type `kind` in place; return in how many places."""
    changed = sum(_retyped_values(graph, kind) for graph in proto_graphs(proto.graph))
    for tensor in proto_tensors(proto):
        if tensor.data_type == kind:
            if onnx.external_data_helper.uses_external_data(tensor):
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            values = _as_float32(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            changed += 1
    for node in proto_nodes(proto.graph):
        for attribute in node.attribute if node.attribute else ():
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == kind:
                attribute.i = onnx.TensorProto.FLOAT
                changed += 1
    return changed


def _as_float32(values: np.ndarray) -> np.ndarray:
    """The values in float32; what is finite stays finite, such as -1e300 of a mask, what is not 0 stays so.

    A divisor or logarithm is kept from 0 by constants such as 1e-300.
    """
    if values.dtype == np.float64:
        range_of = np.finfo(np.float32)
        values = np.where(np.isfinite(values), np.clip(values, -range_of.max, range_of.max), values)
        vanish = (values != 0) & (np.abs(values) < range_of.tiny)
        values = np.where(vanish, np.copysign(range_of.tiny, values), values)
    return values.astype(np.float32)


def _retyped_values(graph: onnx.GraphProto, kind: int) -> int:
    values = (*graph.input, *graph.output, *graph.value_info)
    found = [one for one in map(_innermost, values) if one.elem_type == kind]
    for tensor in found:
        tensor.elem_type = onnx.TensorProto.FLOAT
    return len(found)


def _innermost(value: onnx.ValueInfoProto) -> onnx.TypeProto.Tensor:
    """The type of a tensor, or of the tensors in a sequence or an optional value."""
    of = value.type
    while of.HasField("sequence_type") or of.HasField("optional_type"):
        of = (of.sequence_type if of.HasField("sequence_type") else of.optional_type).elem_type
    return of.tensor_type


def _find_output_shapes(proto: onnx.ModelProto) -> str:
    """Give outputs without a type or a shape the inferred ones, where inference finds them."""
    bare = [value for value in proto.graph.output if not _says_something(value)]
    if not bare:
        return ""
    inferred = onnx.shape_inference.infer_shapes(proto)
    found = {value.name: value for value in inferred.graph.output}
    for value in bare:
        if _says_something(found[value.name]):
            value.type.CopyFrom(found[value.name].type)
    return f"the outputs {_listed([value.name for value in bare])} had no type or shape"


def _listed(names: list[str]) -> str:
    return listed([f"'{name}'" if "'" not in name else name for name in names], 3)
