"""The graph that ``torch.export`` sees: real order of execution, functional calls, every consumer.

A module is analysed on this graph and changed as a module. Nodes are ATen operators before
decomposition (``aten.conv2d``, ``aten.batch_norm``, ``aten.relu_`` ...).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.export.graph_signature import InputKind

from trtbuild.errors import ModelError
from trtbuild.pytorch.inputs import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Node

    from trtbuild.pytorch.inputs import BoundInputs

__all__ = [
    "calls",
    "capture",
    "module_path",
    "name_of",
    "quiet",
    "shape",
    "state_names",
    "tensor_of",
]


def capture(module: nn.Module, inputs: BoundInputs, *, dynamic: bool = False) -> ExportedProgram:
    """Export `module` to an ATen program.

    Args:
        module: in eval mode.
        inputs: sample inputs; their dims are fixed in the program.
        dynamic: leave the dims open that `inputs` names as dynamic.

    Raises:
        ModelError: neither way of tracing works, for example because data chooses a branch.
    """
    arguments, keywords = sample(inputs, seed=0)
    shapes = _dynamic_shapes(inputs) if dynamic else None
    failures = []
    for strict in (False, True):
        try:
            with quiet(), contextlib.redirect_stderr(io.StringIO()):
                return torch.export.export(
                    module, arguments, keywords, dynamic_shapes=shapes, strict=strict
                )
        except Exception as error:  # noqa: BLE001 - torch.export raises every kind of error
            failures.append(f"{'strict' if strict else 'non-strict'}: {_cause(error)}")
    raise ModelError(
        "the module cannot be traced by torch.export; tried\n  " + "\n  ".join(failures) + "\n"
        "A branch or a size that depends on values has to be rewritten (torch.where, torch.cond), or "
        "taken out of the module."
    )


def _dynamic_shapes(inputs: BoundInputs) -> dict[str, Any] | None:
    if not any(spec.dynamic for spec in inputs.specs):
        return None
    dims = {name: torch.export.Dim(name) for spec in inputs.specs for name in spec.dynamic.values()}
    return {
        str(spec.name): {axis: dims[name] for axis, name in spec.dynamic.items()} or None
        for spec in inputs.specs
    }


def _cause(error: BaseException) -> str:
    """The first line of an exporter's error that says something, with where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if not line.startswith(("from user code", "Traceback"))), ""
    )
    where = [line for line in lines if line.startswith("File ") and "/torch/" not in line]
    return f"{type(error).__name__}: {told[:300]}" + (f" ({where[-1]})" if where else "")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the exporter's own warnings and log lines, which speak of its internals."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.export", "torch.onnx", "torch.fx", "torch._dynamo")
    ]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def name_of(node: Node) -> str:
    """The operator's name without namespace and overload: ``conv2d``, ``relu_``; else empty."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return ""
    return str(target._schema.name.partition("::")[2])


def calls(program: ExportedProgram) -> list[Node]:
    """The operators of the graph in order of execution."""
    return [node for node in program.graph.nodes if node.op == "call_function"]


def module_path(node: Node) -> str:
    """Path of the innermost module that made this call, empty for the outermost one.

    A second call of a module is recorded as ``path@1``; the mark is taken off here.
    """
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return str(path).partition("@")[0]


def shape(node: Node) -> tuple[Any, ...] | None:
    """The dims of the node's tensor: ints, and sympy expressions for dynamic ones; None if no tensor."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(dim.node.expr if isinstance(dim, torch.SymInt) else dim for dim in value.shape)


def state_names(program: ExportedProgram) -> dict[str, str]:
    """Placeholder name -> name of the parameter, buffer or constant that it stands for."""
    kinds = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    return {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind in kinds and spec.target is not None
    }


def tensor_of(program: ExportedProgram, name: str) -> torch.Tensor:
    """The tensor of a parameter, buffer or constant of the program."""
    if name in program.state_dict:
        return program.state_dict[name]
    return program.constants[name]
