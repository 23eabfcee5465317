"""Traces a module with ``torch.export``, with fixed or dynamic dims, to the graph that `aten` reads."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes
from torch.export.graph_signature import InputKind

from trtbuild.errors import ModelError
from trtbuild.pytorch.aten import shape
from trtbuild.pytorch.copies import copy_module
from trtbuild.pytorch.fake_quantize import shapes_of_fake_quantize
from trtbuild.pytorch.inputs import sample, with_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.export import ExportedProgram

    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.spec import InputSpec

__all__ = ["bounds", "capture", "open_lengths", "quiet"]


def capture(module: nn.Module, inputs: BoundInputs, *, dynamic: bool = False) -> ExportedProgram:
    """Export `module` to an ATen program.

    Args:
        module: in eval mode.
        inputs: sample inputs; their dims are fixed in the program.
        dynamic: keep the dims dynamic that `inputs` names as dynamic.

    Raises:
        ModelError: no way of tracing works, for example because a branch depends on data.
    """
    if dynamic:
        inputs = _with_dims_of_two(inputs)
    module = copy_module(module, share_parameters=True)  # tracing leaves tensors in the module
    shapes = _dynamic_shapes(inputs) if dynamic else None
    failures = []
    for strict in (False, True):
        try:
            return _traced(module, inputs, shapes, strict=strict)
        except Exception as error:  # noqa: BLE001 - torch raises any type; reported below
            if shapes is not None and "Constraints violated" in str(error):
                return _with_fewer_sizes(module, inputs, error)
            failures.append(f"{'strict' if strict else 'non-strict'}: {_cause(error)}")
    raise ModelError(
        "the module cannot be traced by torch.export; tried\n  " + "\n  ".join(failures) + "\n"
        "A branch or a size that depends on values has to be rewritten (torch.where, torch.cond), or "
        "taken out of the module."
    )


def _traced(
    module: nn.Module, inputs: BoundInputs, shapes: dict[str, Any] | None, *, strict: bool = False
) -> ExportedProgram:
    arguments, keywords = sample(inputs, seed=0)
    with quiet():
        return torch.export.export(
            module, arguments, keywords, dynamic_shapes=shapes, strict=strict
        )


@contextlib.contextmanager
def open_lengths() -> Iterator[None]:
    """Let torch trace recurrent layers over a dynamic length, as its own ONNX exporter does.

    Otherwise it unrolls them step by step, for the length of the sample.
    """
    try:
        from torch.export import _patches
    except ImportError:  # before torch 2.10
        yield
        return
    operators = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)
    try:
        with (
            _patches.register_lstm_while_loop_decomposition(),
            _patches.register_gru_while_loop_decomposition(),
        ):
            for one in operators:  # it keeps the result of an earlier trace
                one._dispatch_cache.clear()
            yield
    finally:
        for one in operators:
            one._dispatch_cache.clear()


def _with_fewer_sizes(
    module: nn.Module, inputs: BoundInputs, refusal: Exception
) -> ExportedProgram:
    """Export with lower bounds for the dynamic dims: those that torch suggests, or the least powers of two.

    A network that halves its maps must not get a map of one pixel, which torch would take for a constant
    size. Recurrent layers are first tried over a dynamic length. Where bounds do not help, torch finds the
    relations of the dims itself.

    Raises:
        ModelError: torch then still fixes one of the dims.
    """
    named = _dynamic_shapes(inputs)
    if any(isinstance(one, torch.nn.LSTM | torch.nn.GRU) for one in module.modules()):
        with contextlib.suppress(Exception), open_lengths():
            return _traced(module, inputs, named)
    least = dict.fromkeys((name for one in inputs.specs for name in one.dynamic.values()), 2)
    shapes = _suggested(named, refusal) or _raised(least, inputs, refusal)
    while shapes is not None:
        try:
            program = _traced(module, inputs, shapes)
        except Exception as error:  # noqa: BLE001 - torch raises any type
            shapes = _raised(least, inputs, error)
            continue
        if _all_open(program, inputs):
            return program
        break
    try:
        program = _traced(module, inputs, _dynamic_shapes(inputs, torch.export.Dim.AUTO))
    except Exception as error:
        raise ModelError(_fixed_dims(refusal)) from error
    if not _all_open(program, inputs):
        raise ModelError(_fixed_dims(refusal)) from refusal
    return program


def _suggested(named: dict[str, Any] | None, refusal: Exception) -> dict[str, Any] | None:
    """The dims with the bounds and relations that torch suggests in its refusal; None without suggestions."""
    try:
        found = refine_dynamic_shapes_from_suggested_fixes(str(refusal), named or {})
    except Exception:  # noqa: BLE001 - it parses torch's own text, and raises if it cannot
        return None
    return found if isinstance(found, dict) else None


def _raised(least: dict[str, int], inputs: BoundInputs, told: Exception) -> dict[str, Any] | None:
    """The dims that torch complains about, with doubled bounds; None where that cannot help."""
    text = str(told)
    names = re.search(r"Constraints violated \(([^)]*)\)", text)
    wrong = set(names[1].split(", ")) & set(least) if names and "specialized" not in text else set()
    sizes = {name: one.dims[axis] for one in inputs.specs for axis, name in one.dynamic.items()}
    if not wrong or any(2 * least[name] > sizes[name] for name in wrong):
        return None
    least.update({name: 2 * least[name] for name in wrong})
    dims = {name: torch.export.Dim(name, min=bound) for name, bound in least.items()}
    return _shapes_with(inputs, dims)


def _all_open(program: ExportedProgram, inputs: BoundInputs) -> bool:
    return not any(
        isinstance(dims[axis], int)
        for spec, dims in _input_dims(program, inputs)
        for axis in spec.dynamic
    )


def _input_dims(
    program: ExportedProgram, inputs: BoundInputs
) -> Iterator[tuple[InputSpec, tuple[Any, ...]]]:
    """The inputs with the dims of their placeholders, as `shape` returns them."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = [
        one.arg.name
        for one in program.graph_signature.input_specs
        if one.kind is InputKind.USER_INPUT
    ]
    for spec, name in zip(inputs.specs, names):
        dims = shape(nodes[name]) if name in nodes else None
        if dims is not None:
            yield spec, tuple(int(dim) if str(dim).isdigit() else dim for dim in dims)


def bounds(program: ExportedProgram, inputs: BoundInputs) -> tuple[str, ...]:
    """Return, in words, each dynamic dim's least size if above 2, and what must divide it."""
    ranges = {str(symbol): limits for symbol, limits in program.range_constraints.items()}
    found: dict[str, str] = {}
    for spec, dims in _input_dims(program, inputs):
        for axis, name in spec.dynamic.items():
            symbols = [str(one) for one in getattr(dims[axis], "free_symbols", ())]
            if not symbols:
                continue
            least = int(getattr(ranges.get(symbols[0]), "lower", 0))
            if str(dims[axis]) != symbols[0]:
                size = str(dims[axis]).replace(symbols[0], "n")
                found[name] = f"'{name}' is {size} for an n of at least {max(least, 1)}"
            elif least > 2:
                found[name] = f"'{name}' is at least {least}"
    return tuple(found.values())


def _with_dims_of_two(inputs: BoundInputs) -> BoundInputs:
    """Set dynamic dims of 1 to 2: torch.export takes a 1 for a constant size."""
    sizes = {
        name: max(spec.dims[axis], 2)
        for spec in inputs.specs
        for axis, name in spec.dynamic.items()
    }
    return with_sizes(inputs, sizes)


def _fixed_dims(error: BaseException) -> str:
    """Say which dynamic dims the module itself fixes."""
    named = re.search(r"Constraints violated \(([^)]*)\)", str(error))
    which = f"'{named[1]}'" if named else "a dynamic axis"
    detail = re.search(r"- (?!Not all)(.*?\)?\.)", str(error))
    return (
        f"{which} cannot be dynamic: the module fixes the size somewhere (a view, an expand), or needs "
        "it to be related to another." + (f" torch says: {detail[1].strip()}" if detail else "")
    )


def _dynamic_shapes(inputs: BoundInputs, dim: Any = None) -> dict[str, Any] | None:
    """The argument of torch.export: a named dim for each dynamic axis, or `dim` for all."""
    if not any(spec.dynamic for spec in inputs.specs):
        return None
    names = {name for spec in inputs.specs for name in spec.dynamic.values()}
    return _shapes_with(
        inputs, {name: torch.export.Dim(name) if dim is None else dim for name in names}
    )


def _shapes_with(inputs: BoundInputs, dims: dict[str, Any]) -> dict[str, Any]:
    shapes = {
        str(spec.name): {axis: dims[name] for axis, name in spec.dynamic.items()} or None
        for spec in inputs.specs
    }
    if not inputs.collected:
        return shapes
    named = {name: one for name, one in shapes.items() if name in inputs.parameters}
    rest = tuple(one for name, one in shapes.items() if name not in inputs.parameters)
    return {**named, inputs.collected: rest} if rest else named


def _cause(error: BaseException) -> str:
    """The first informative line of an exporter's error, with the place where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if not line.startswith(("from user code", "Traceback"))), ""
    )
    where = [line for line in lines if line.startswith("File ") and "/torch/" not in line]
    return f"{type(error).__name__}: {told[:300]}" + (f" ({where[-1]})" if where else "")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the exporter prints about its internals: warnings, log lines, failed graphs.

    And register shape functions, see `trtbuild.pytorch.fake_quantize.shapes_of_fake_quantize`.
    """
    known = logging.root.manager.loggerDict
    # only these of torch's hundreds of loggers have a level of their own
    own = [
        name
        for name, one in known.items()
        if name.startswith("torch.") and isinstance(one, logging.Logger) and one.level
    ]
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", *own)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            shapes_of_fake_quantize(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
