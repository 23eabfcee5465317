"""Refuses what cannot be analysed, trained or exported, with a sentence that names the place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.modules.lazy import LazyModuleMixin

from trtbuild.errors import ModelError
from trtbuild.pytorch.aten import calls, module_path, name_of
from trtbuild.wording import listed

__all__ = [
    "refuse_nan",
    "refuse_other_outputs",
    "refuse_program",
    "refuse_projections",
    "refuse_unfinished",
]


def refuse_program(value: object, name: str) -> None:
    """Refuse a program of ``torch.export`` where a module is needed.

    Raises:
        ModelError: `value` is one; the text calls it `name`.
    """
    if isinstance(value, ExportedProgram):
        raise ModelError(
            f"{name} is a program of torch.export, which can be neither trained nor pruned: give "
            "the module that it was exported from, or build the program with Python's trtbuild.build."
        )


def refuse_unfinished(module: nn.Module) -> None:
    """Refuse what is not a module, and modules that cannot be analysed or have no weights yet.

    Raises:
        ModelError: a part of `module` is TorchScript or lazy, is an observer of torchao, has integers that
            torch.ao packed, or weights on the device ``meta``; the text names it.
    """
    refuse_program(module, "the network")
    if not isinstance(module, nn.Module):
        raise ModelError(f"the network is a {type(module).__name__}, not an nn.Module.")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise ModelError(
                f"'{name}' has a shape and no values (device 'meta'): construct the module on the CPU, or "
                "load its weights with assign=True."
            )
    for path, child in module.named_modules():
        where = f"'{path}'" if path else "the module"
        if isinstance(child, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} is TorchScript, whose inside cannot be seen: give the module that it was made of."
            )
        if isinstance(child, LazyModuleMixin) and child.has_uninitialized_params():
            raise ModelError(
                f"{where} is lazy and has no weights yet: run the module once on a sample, in eval mode, "
                "before it is given."
            )
        if type(child).__module__.startswith("torchao.") and hasattr(child, "calculate_qparams"):
            raise ModelError(
                f"the module was prepared by torchao and still observes ranges ({where}): give what "
                "torchao.quantization.pt2e.quantize_pt2e.convert_pt2e makes of it."
            )
        if _is_packed(child):
            raise ModelError(
                f"{where} was quantized by torch.ao, whose packed integers ONNX cannot hold: give the float "
                "module, or what prepare_qat made of it, before convert or quantize_dynamic."
            )


def _is_packed(module: nn.Module) -> bool:
    """Whether torch.ao has packed integer weights into a C++ object in this layer or a part of it."""
    return type(module).__module__.startswith("torch.ao.nn.") and any(
        isinstance(value, torch.ScriptObject)
        for one in module.modules()
        for value in vars(one).values()
    )


def refuse_other_outputs(output: Any) -> None:
    """Refuse outputs that are not tensors of real numbers: an engine gives nothing else.

    Raises:
        ModelError: one is a number or complex, say, or there is none; the text names its place.
    """
    leaves = torch.utils._pytree.tree_leaves_with_path(output)
    for path, leaf in leaves:
        where = torch.utils._pytree.keystr(path)
        at = f" at {where} of its outputs" if where else ""
        if leaf is not None and not isinstance(leaf, torch.Tensor):
            raise ModelError(
                f"forward gives a {type(leaf).__name__}{at}, but an exported file gives only tensors: "
                "leave it out, or wrap the module in one that does."
            )
        if leaf is not None and leaf.is_complex():
            raise ModelError(
                f"forward gives complex numbers{at}, which an engine does not have: wrap the module in one "
                "that gives torch.view_as_real of them."
            )
    if all(leaf is None for _, leaf in leaves):
        raise ModelError("forward gives no tensor, so there is nothing to export.")


def refuse_nan(module: nn.Module) -> None:
    """Refuse a module with NaN in a parameter or buffer.

    Raises:
        ModelError: there is one; the text names the first three.
    """
    named = (*module.named_parameters(), *module.named_buffers())
    bad = [name for name, one in named if one.is_floating_point() and bool(one.isnan().any())]
    if bad:
        raise ModelError(
            f"{listed(bad, 3)}: NaN values. The training went wrong, or another checkpoint was "
            "meant; nothing was exported."
        )


def refuse_projections(program: ExportedProgram) -> None:
    """Refuse an LSTM with proj_size, which ONNX's LSTM lacks: torch would write an invalid one.

    Raises:
        ModelError: there is one; the text names it.
    """
    for node in calls(program):
        if name_of(node) != "lstm" or not isinstance(node.args[1], list | tuple):
            continue
        hidden, cell = (one.meta["val"] for one in node.args[1])
        if hidden.shape[-1] != cell.shape[-1]:
            path = module_path(node)
            where = f"'{path}'" if path else "the module"
            raise ModelError(
                f"{where} is an LSTM with proj_size, which ONNX's LSTM does not have; nothing was "
                "exported. Rewrite its steps with linear layers."
            )
