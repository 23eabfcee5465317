"""Reads the graph of ``torch.export``: it has the real order of execution, functional calls and all readers.

Modules are analysed on this graph, but changed as modules. Its nodes are ATen operators before
decomposition (``aten.conv2d``, ``aten.batch_norm``, ``aten.relu_`` ...).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.export.graph_signature import InputKind

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = [
    "calls",
    "groups_by_sample",
    "module_path",
    "name_of",
    "shape",
    "state_names",
    "tensor_of",
]


def name_of(node: Node) -> str:
    """Return the operator's name without namespace and overload: ``conv2d``, ``relu_``; else empty."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return ""
    return str(target._schema.name.partition("::")[2])


def calls(program: ExportedProgram) -> list[Node]:
    """Return the operators of the graph in order of execution."""
    return [node for node in program.graph.nodes if node.op == "call_function"]


def groups_by_sample(program: ExportedProgram) -> str | None:
    """Return the module path of the first convolution with one group per sample, or None."""
    for node in calls(program):
        if name_of(node).startswith("conv") and any(
            isinstance(one, torch.fx.Node) and isinstance(one.meta.get("val"), torch.SymInt)
            for one in node.args[3:]
        ):
            return module_path(node)
    return None


def module_path(node: Node) -> str:
    """Path of the innermost module that made this call; empty for the outermost module.

    A second call of a module is recorded as ``path@1``; the suffix is removed.
    """
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return str(path).partition("@")[0]


def shape(node: Node) -> tuple[Any, ...] | None:
    """Return the dims of the node's tensor, dynamic ones as SymPy expressions; None if it is not a tensor."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(dim.node.expr if isinstance(dim, torch.SymInt) else dim for dim in value.shape)


def state_names(program: ExportedProgram) -> dict[str, str]:
    """Placeholder name -> name of its parameter, buffer or constant."""
    kinds = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    return {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind in kinds and spec.target is not None
    }


def tensor_of(program: ExportedProgram, name: str) -> torch.Tensor:
    """Return the tensor of a parameter, buffer or constant of the program."""
    if name in program.state_dict:
        return program.state_dict[name]
    return program.constants[name]
