"""Reads an ONNX file, normalizes it, and says exactly what is wrong if it cannot be read.

Normalized means: weights that are also graph inputs are only weights (before IR version 4 every weight had
to be an input), local functions are inlined, the opset is at least 13 (the first with a per-channel axis on
QuantizeLinear; 19 with float16 weights, the first with float16 scales), and every node has a unique name,
since reports and ``--float`` use node names.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from trtbuild.errors import ModelError, decoding
from trtbuild.files import is_named_in_utf8
from trtbuild.model.collecting import collector_at_rest
from trtbuild.model.file_kinds import other_than_onnx
from trtbuild.model.functions import (
    check_size_written_out,
    with_functions_of_its_opset,
    with_functions_written_out,
)
from trtbuild.model.graph_library import ir
from trtbuild.model.operators import ONNX_DOMAINS
from trtbuild.model.opset import raise_proto_opset
from trtbuild.model.outside_weights import (
    are_small,
    hold_weights,
    outside_weights,
    read_attributes,
    state_of,
    watch_large_weights,
)
from trtbuild.model.repair import drop_absent_inputs, narrow_float64, repair, switch_to_evaluation
from trtbuild.model.stored_weights import note_inside
from trtbuild.model.traversal import proto_bodies, proto_graphs, proto_nodes, proto_tensors
from trtbuild.model.validity import check_sizes, check_valid, check_weights
from trtbuild.model.weights_apart import read_apart
from trtbuild.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = [
    "MIN_OPSET",
    "MIN_QDQ_OPSET",
    "MIN_QDQ_OPSET_HALF",
    "drop_weight_inputs",
    "name_nodes",
    "parse_proto",
    "read_as_written",
    "read_model",
    "read_unchanged",
    "repairs_of",
    "weight_files",
]

_log = logging.getLogger(__name__)

# Key of `repairs_of` in the metadata that a network has in memory only, not in its file.
_REPAIRS = "trtbuild.repairs"

# Bytes shown of a text that is not UTF-8.
_MOST_SHOWN = 60

# Operators that ONNX does not have are moved to this domain while a file is checked and repaired.
_UNKNOWN = "trtbuild.unknown"

# The key under which a weight names its file.
_EXTERNAL_KEY = b"location"

# Stands for the network's own file where its name, which may not be UTF-8, does not matter.
_NO_FILE = "."

# Bytes. The large weights of larger files are not parsed.
_WORTH_APART = 4_000_000

# Bytes that suffice to tell the kind of file.
_BEGINNING = 1 << 16

MIN_OPSET = 7
MIN_QDQ_OPSET = 13
MIN_QDQ_OPSET_HALF = 19


@collector_at_rest()
def read_model(path: Path) -> ir.Model:
    """Read the ONNX file at `path`; large weights stay mapped from disk.

    Raises:
        ModelError: the file is missing, not ONNX, damaged, or lacks its external data; its opset is not
            supported; its graph is not valid; or an input or output is not a tensor of numbers.
    """
    with decoding(ModelError, f"cannot read '{path}'", "Export it again."), _unchanged(path):
        return _read_model(path)


def _read_model(path: Path) -> ir.Model:
    proto, path, repairs = _checked(path)
    switched = switch_to_evaluation(proto, path)
    proto = with_functions_written_out(proto)
    for sentence in filter(None, (switched, narrow_float64(proto, path))):
        _log.warning("'%s': %s.", path, sentence)
        repairs = (*repairs, sentence)
    needed = MIN_QDQ_OPSET_HALF if _has_half_weights(proto) else MIN_QDQ_OPSET
    if _opset(proto) < needed:
        proto = raise_proto_opset(proto, needed, path)
    model = _as_ir(proto, path, repairs)
    drop_weight_inputs(model)
    _check_interface(model, path)
    name_nodes(model)
    return model


@collector_at_rest()
def read_unchanged(path: Path) -> ir.Model:
    """Read the ONNX file at `path` with the same checks, but do not change opset, inputs and names.

    Raises:
        ModelError: as in `read_model`.
    """
    with decoding(ModelError, f"cannot read '{path}'", "Export it again."), _unchanged(path):
        proto, found, repairs = _checked(path)
        return _as_ir(proto, found, repairs)


@contextlib.contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Refuse a file that changes during the block: its weights are read after the rest."""
    before = state_of(path) if path.is_file() else None
    yield
    if before is not None and state_of(path) != before:
        raise ModelError(
            f"'{path}' was written while it was read; start again, and do not write to it meanwhile."
        )


def read_as_written(path: Path) -> ir.Model:
    """Read a file that trtbuild or ONNX Runtime has just written, without checks or changes."""
    return ir.load(path)


def _checked(path: Path) -> tuple[onnx.ModelProto, Path, tuple[str, ...]]:
    """The valid network, the file beside which its weights lie, and the repairs that were made."""
    proto = parse_proto(path)
    if any(file.is_symlink() for file in _weight_files(proto, path)):
        path = _with_real_weights(proto, path)
    _check_opset(proto, path)
    check_size_written_out(proto, path)  # before any code walks through the functions
    check_weights(proto, path)
    check_sizes(proto, path)
    _set_aside_unknown(proto)
    repaired = repair(proto, path)
    proto, written_out = with_functions_of_its_opset(proto, path)
    repairs = (*repaired, written_out) if written_out else tuple(repaired)
    check_valid(proto, path)
    for sentence in repairs:
        _log.warning("'%s': %s.", path, sentence)
    return proto, path, repairs


def _with_real_weights(proto: onnx.ModelProto, path: Path) -> Path:
    """Replace symbolic links in the names of weight files by the real files; return the real `path`.

    Caches of model hubs have links; mapping weights refuses them, since they may lead anywhere.
    """
    real = path.resolve()
    for tensor in proto_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == _EXTERNAL_KEY.decode():
                entry.value = os.path.relpath((path.parent / entry.value).resolve(), real.parent)
    return real


def _set_aside_unknown(proto: onnx.ModelProto) -> None:
    """Move unknown operators of the ONNX domain into another domain, until `_put_back_unknown`.

    TensorRT finds a plugin by its name in any domain; ONNX's checker and converter refuse unknown names in
    the ONNX domain.
    """
    graphs = [proto.graph.node, *(function.node for function in proto.functions)]
    own = {function.name for function in proto.functions if function.domain in ONNX_DOMAINS}
    has = functools.cache(onnx.defs.has)
    unknown = [
        node
        for nodes in graphs
        for top in nodes
        for node in (top, *(n for body in proto_bodies(top) for n in proto_nodes(body)))
        if node.domain in ONNX_DOMAINS and node.op_type not in own and not has(node.op_type)
    ]
    for node in unknown:
        node.domain = _UNKNOWN
    if unknown:
        for imports in (proto.opset_import, *(one.opset_import for one in proto.functions)):
            imports.append(onnx.helper.make_opsetid(_UNKNOWN, 1))


def _put_back_unknown(model: ir.Model) -> None:
    if _UNKNOWN not in model.opset_imports:
        return
    for nodes in (model.graph.all_nodes(), *(one.all_nodes() for one in model.functions.values())):
        for node in nodes:
            if node.domain == _UNKNOWN:
                node.domain = ""
    for imports in (model.opset_imports, *(one.opset_imports for one in model.functions.values())):
        imports.pop(_UNKNOWN, None)


def _as_ir(proto: onnx.ModelProto, path: Path, repairs: tuple[str, ...]) -> ir.Model:
    drop_absent_inputs(proto)
    outside = outside_weights(proto)
    small = are_small(outside)
    if outside and small:
        read_attributes(proto, path)
    model: ir.Model = ir.from_proto(proto)
    _put_back_unknown(model)
    if outside:
        ir.external_data.set_base_dir(model.graph, path.parent)
    if outside and small:
        hold_weights(model)
    elif outside:
        watch_large_weights(model)
        note_inside(model, path)
    model.meta[_REPAIRS] = repairs
    return model


def repairs_of(model: ir.Model) -> tuple[str, ...]:
    """Return a sentence for each repair made while `model` was read; empty if it was not read from a file."""
    found: tuple[str, ...] = model.meta.get(_REPAIRS, ())
    return found


def parse_proto(path: Path) -> onnx.ModelProto:
    """Parse the ONNX file at `path` without checking the graph; large weights stay in the file.

    Raises:
        ModelError: there is no such file, or it is not ONNX.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(f"the model '{path}' {what}; give the path of an ONNX file.")
    # weights that stay in the file refer to it by name, in UTF-8
    if path.stat().st_size > _WORTH_APART and is_named_in_utf8(path.name):
        return _parse_apart(path)
    try:
        content = path.read_bytes()
        other = other_than_onnx(content, path.suffix)
        if other is not None:
            raise ModelError(f"'{path}' is not an ONNX file, but {other[0]}; {other[1]}.")
        proto = onnx.ModelProto.FromString(content)
    except OSError as error:
        raise ModelError(f"cannot read the model '{path}': {error.strerror}.") from error
    except DecodeError as error:
        raise _damaged(path) from error
    _check_holds(proto, path)
    return proto


def _parse_apart(path: Path) -> onnx.ModelProto:
    """Parse a large file whose large weights stay there, mapped."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            other = other_than_onnx(content[:_BEGINNING], path.suffix)
            if other is not None:
                raise ModelError(f"'{path}' is not an ONNX file, but {other[0]}; {other[1]}.")
            proto = onnx.ModelProto.FromString(read_apart(content, path.name))
    except OSError as error:
        raise ModelError(f"cannot read the model '{path}': {error.strerror}.") from error
    except (DecodeError, ValueError) as error:
        raise _damaged(path) from error
    _check_holds(proto, path)
    return proto


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"'{path}' is not an ONNX file, or it is cut off or damaged ({path.stat().st_size} bytes); "
        "export or copy it again."
    )


def _check_holds(proto: onnx.ModelProto, path: Path) -> None:
    if proto.opset_import and proto.graph.output and not proto.graph.node:
        raise ModelError(
            f"'{path}' holds no node: its outputs are inputs or constants, so there is nothing to compute."
        )
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(
            f"'{path}' is not an ONNX file, or it is cut off: it holds "
            f"{counted(len(proto.graph.node), 'node')} and "
            f"{counted(len(proto.opset_import), 'opset import')} in {path.stat().st_size} bytes."
        )
    odd = next((one for one in _texts_in(proto) if isinstance(one, bytes)), None)
    if odd is not None:  # protobuf returns strings that are not UTF-8 as bytes
        raise ModelError(
            f"'{path}' holds the text {odd[:_MOST_SHOWN]!r}, which is not UTF-8: the file is damaged, or was "
            "written by a broken exporter; export or copy it again."
        )


def _texts_in(proto: onnx.ModelProto) -> Iterator[str | bytes]:
    """Every name and doc string: none can be written again if it is not UTF-8."""
    yield from (proto.producer_name, proto.producer_version, proto.domain)
    yield from (one.domain for one in proto.opset_import)
    graphs = list(proto_graphs(proto.graph))
    nodes = [*proto_nodes(proto.graph), *(one for f in proto.functions for one in f.node)]
    for some in ([proto], graphs, nodes, proto.functions):
        for one in some:
            yield one.doc_string
            for item in one.metadata_props if one.metadata_props else ():
                yield from (item.key, item.value)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
    yield from _texts_of(nodes)
    for graph in graphs:
        yield from (graph.name, *(weight.name for weight in graph.initializer))
        for values in (graph.input, graph.output, graph.value_info):
            for value in values:
                yield from (value.name, value.doc_string, value.type.denotation)
                for dim in value.type.tensor_type.shape.dim:
                    yield from (dim.dim_param, dim.denotation)


def _texts_of(nodes: Iterable[onnx.NodeProto]) -> list[str | bytes]:
    """Names of nodes, of their attributes, inputs and outputs; a list is faster than a generator."""
    found: list[str | bytes] = []
    for node in nodes:
        found += (node.name, node.op_type, node.domain)
        found += node.input
        found += node.output
        if node.attribute:
            found += [attribute.name for attribute in node.attribute]
    return found


def _opset(proto: onnx.ModelProto) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ONNX_DOMAINS]
    return versions[0] if versions else 0


def _check_opset(proto: onnx.ModelProto, path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    opset = _opset(proto)
    if not MIN_OPSET <= opset <= newest:
        found = f"opset {opset}" if opset else "no opset of the ONNX domain"
        raise ModelError(
            f"'{path}' uses {found}; opsets {MIN_OPSET} to {newest} are supported. "
            "Export the network with opset 17 or 18."
        )


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside the ONNX file `path` that hold its weights; none if it is not ONNX."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if len(content) <= _WORTH_APART and content.find(_EXTERNAL_KEY) < 0:
                return ()
            proto = onnx.ModelProto.FromString(read_apart(content, _NO_FILE))
    except (OSError, ValueError, DecodeError):  # reported when the network is read
        return ()
    inside = {path, path.parent / _NO_FILE}
    return tuple(file for file in _weight_files(proto, path) if file not in inside)


def _weight_files(proto: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    names = {
        entry.value
        for tensor in proto_tensors(proto)
        for entry in tensor.external_data
        if entry.key == _EXTERNAL_KEY.decode()
    }
    return tuple(path.parent / name for name in sorted(names))


def _check_interface(model: ir.Model, path: Path) -> None:
    if not model.graph.outputs:
        raise ModelError(f"'{path}' has no output, so it computes nothing; export it again.")
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            tensor = value.type is None or isinstance(value.type, ir.TensorType)
            if not tensor or value.dtype == ir.DataType.STRING:
                raise ModelError(
                    f"the {kind} '{value.name}' of '{path}' is {value.type}; only tensors of numbers "
                    "are supported."
                )


def _has_half_weights(proto: onnx.ModelProto) -> bool:
    return any(one.data_type == onnx.TensorProto.FLOAT16 for one in proto_tensors(proto))


def drop_weight_inputs(model: ir.Model) -> None:
    """Remove weights from the inputs of `model`, in place: callers of an engine never pass them."""
    weights = set(model.graph.initializers)
    kept = [value for value in model.graph.inputs if value.name not in weights]
    if len(kept) != len(model.graph.inputs):
        model.graph.inputs.clear()
        model.graph.inputs.extend(kept)
        model.ir_version = max(model.ir_version, 4)


def name_nodes(model: ir.Model, nodes: Iterable[ir.Node] | None = None) -> None:
    """Give every node a unique name, in place; names that are unique stay.

    Args:
        model: a network.
        nodes: the nodes to name; by default those of its main graph.
    """
    seen: set[str] = set()
    for node in model.graph if nodes is None else nodes:
        base = node.name or f"{node.op_type}_{node.outputs[0].name}"
        name, number = base, 1
        while name in seen:
            number += 1
            name = f"{base}_{number}"
        node.name = name
        seen.add(name)
