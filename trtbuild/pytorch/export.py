"""Exports a module as a checked ONNX file: folded, named by its modules, compared."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx
import torch

from trtbuild.errors import ModelError
from trtbuild.foreign_warnings import warnings_that_only_warn
from trtbuild.model.opset import lower_to_17, opset_of
from trtbuild.model.writing import files_of, staged_model
from trtbuild.pytorch.activations import find_activations
from trtbuild.pytorch.aten import groups_by_sample
from trtbuild.pytorch.attention import AttentionInSteps, has_attention
from trtbuild.pytorch.copies import copy_module, enforce_eval, make_weights_plain, unwrapped
from trtbuild.pytorch.fake_quantize import freeze_fake_quantize
from trtbuild.pytorch.fold import fold_norms
from trtbuild.pytorch.inputs import bind_inputs
from trtbuild.pytorch.names import name_by_modules, name_dims, name_outputs, strip_metadata
from trtbuild.pytorch.parity import check_parity
from trtbuild.pytorch.qat import freeze_quantized_layers
from trtbuild.pytorch.refusals import refuse_nan, refuse_other_outputs, refuse_projections
from trtbuild.pytorch.running import check_repeatable, run
from trtbuild.pytorch.spec import DEFAULT_OPSET, check_opset
from trtbuild.pytorch.tracing import bounds, capture, open_lengths, quiet
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx_ir as ir
    from torch import nn
    from torch.export import ExportedProgram

    from trtbuild.pytorch.activations import LayerActivation
    from trtbuild.pytorch.export_steps import ExportSteps
    from trtbuild.pytorch.fold import FoldReport
    from trtbuild.pytorch.inputs import BoundInputs
    from trtbuild.pytorch.parity import ParityReport
    from trtbuild.pytorch.spec import InputSpec

__all__ = ["ExportResult", "export_onnx", "to_onnx"]


@dataclass(frozen=True)
class ExportResult:
    """An exported network.

    Attributes:
        model: the ONNX model; node names are module paths.
        module: the torch module that was exported: folded, in eval mode.
        path: the file, or None.
        files: every file written.
        opset: of the ONNX domain.
        parity: how much the file's results differ from the module's.
        fold: what was done with each norm; None when folding was not asked for.
        activations: layers whose range is taken after their activation.
        warnings: sentences for the user.
        steps: what was done before, by `trtbuild.pytorch.export_from_spec`; None if nothing.
    """

    model: ir.Model
    module: nn.Module
    path: Path | None
    files: tuple[Path, ...]
    opset: int
    parity: ParityReport
    fold: FoldReport | None
    activations: tuple[LayerActivation, ...]
    warnings: tuple[str, ...] = ()
    steps: ExportSteps | None = None


@warnings_that_only_warn()
def export_onnx(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    *,
    path: Path | None = None,
    fold: bool = True,
    opset: int = DEFAULT_OPSET,
    force_opset: bool = False,
    output_names: Sequence[str] = (),
    external_data: bool | None = None,
) -> ExportResult:
    """Export `module` to ONNX and compare the file with it; `module` itself is not changed.

    Args:
        module: any module; a copy of it is put into eval mode.
        inputs: the sample inputs, with their dynamic dims.
        path: the file to write; None keeps the model in memory.
        fold: fold norms first, so that every weighted node maps to its module.
        opset: of the file, see `trtbuild.pytorch.spec`.
        force_opset: allow an opset that TensorRT 10 may not parse.
        output_names: names of the outputs in order; else ``output`` or the keys of a dict.
        external_data: write the weights into a file of their own; None: only above 1.8 GB.

    Raises:
        OptionError: opset, inputs or output names do not fit.
        ModelError: the module cannot be run or traced, operators cannot be exported, or the file's results
            differ. No file is left then.
        OutputError: the file cannot be written.
    """
    check_opset(opset, force=force_opset)
    module = unwrapped(module)
    bound = bind_inputs(module, inputs)
    original, bound, warnings = _evaluable(module, bound)
    sample_output = run(copy_module(original, share_parameters=True), bound)
    refuse_other_outputs(sample_output)
    check_repeatable(original, bound)
    prepared, report = _prepare(original, bound, fold=fold)
    program, model = _exported(prepared, bound, opset)
    activations = find_activations(program)
    limits = bounds(program, bound)
    if bound.collected:  # the exporter numbers their names
        for value, name in zip(model.graph.inputs, bound.names):
            value.name = name
    name_dims(model, bound.specs)
    name_outputs(model, sample_output, output_names)
    warnings += _dimension_warnings(model, bound)
    warnings += [f"{limit}: the module takes no other size." for limit in limits]
    with _destination(model, path, external_data) as file:
        parity = check_parity(file, original, bound)
    return ExportResult(
        model=model,
        module=prepared,
        path=path,
        files=() if path is None else files_of(model, path, external_data=external_data),
        opset=opset_of(model),
        parity=parity,
        fold=report,
        activations=activations,
        warnings=tuple(warnings),
    )


def _evaluable(module: nn.Module, bound: BoundInputs) -> tuple[nn.Module, BoundInputs, list[str]]:
    """A copy of `module` for evaluation in float32, its inputs, and sentences about what was changed."""
    original = copy_module(module)
    refuse_nan(original)
    warnings = enforce_eval(original)
    bound, narrowed = _in_float32(original, bound)
    freeze_fake_quantize(original)
    freeze_quantized_layers(original)
    return original, bound, [*warnings, *narrowed]


def _in_float32(module: nn.Module, bound: BoundInputs) -> tuple[BoundInputs, list[str]]:
    """Convert float64 weights (in place) and inputs to float32; return the inputs and what was done.

    TensorRT has no float64, and ONNX Runtime has no float64 convolutions.
    """
    if all(one.dtype is not torch.float64 for one in module.parameters()):
        return bound, []
    module._apply(lambda one: one.float() if one.dtype is torch.float64 else one)
    specs = (
        replace(one, dtype="float32") if one.dtype == "float64" else one for one in bound.specs
    )
    told = "weights of float64 are exported as float32: TensorRT has no float64."
    return replace(bound, specs=tuple(specs)), [told]


def _prepare(
    original: nn.Module, bound: BoundInputs, *, fold: bool
) -> tuple[nn.Module, FoldReport | None]:
    if fold:
        result = fold_norms(original, bound)
        return result.module, result.report
    plain = copy_module(original)
    make_weights_plain(plain)
    return plain, None


def _exported(
    module: nn.Module, bound: BoundInputs, opset: int
) -> tuple[ExportedProgram, ir.Model]:
    """The traced module, and the ONNX model that torch makes of it."""
    program = capture(module, bound, dynamic=True)
    try:
        return program, to_onnx(program, module, opset)
    except ModelError:
        if not has_attention(program):
            raise
    # torch cannot export attention unless it has four axes, and cannot decompose it where two attention
    # kernels return different memory layouts
    with AttentionInSteps():
        program = capture(module, bound, dynamic=True)
    return program, to_onnx(program, module, opset)


def to_onnx(program: ExportedProgram, module: nn.Module, opset: int) -> ir.Model:
    """Return the ONNX model of `program`, with nodes and tensors named after the parts of `module`.

    Raises:
        ModelError: ONNX cannot express it, or torch cannot export this opset.
    """
    refuse_projections(program)
    try:
        with quiet(), open_lengths():
            exported = torch.onnx.export(
                program, opset_version=max(opset, 18), dynamo=True, optimize=True, verbose=False
            )
    except Exception as error:
        cause = error.__cause__ or error
        where = groups_by_sample(program)
        if where is not None:
            raise ModelError(
                f"a convolution in '{where or 'forward'}' has separate kernels for each sample, but in "
                "ONNX the number of groups cannot depend on the batch: export with a fixed batch."
            ) from error
        raise ModelError(f"torch cannot express the module in ONNX: {_short(cause)}") from error
    model: ir.Model = exported.model
    if opset_of(model) != max(opset, 18):
        raise ModelError(
            f"torch made opset {opset_of(model)} where {opset} was asked for; it cannot export that opset."
        )
    name_by_modules(model, module)
    strip_metadata(model)
    if opset == 17:
        lower_to_17(model)
    return model


def _short(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _dimension_warnings(model: ir.Model, bound: BoundInputs) -> list[str]:
    """Warn of outputs whose first dim is fixed although the batch is dynamic."""
    if not any(0 in spec.dynamic for spec in bound.specs):
        return []
    batch = next(spec.dims[0] for spec in bound.specs if 0 in spec.dynamic)
    return [
        f"output '{value.name}' has the fixed first dim {batch} although the batch is dynamic: the "
        "module fixes that number somewhere (a view, an expand)."
        for value in model.graph.outputs
        if value.shape is not None and len(value.shape) and value.shape[0] == batch
    ]


@contextlib.contextmanager
def _destination(model: ir.Model, path: Path | None, external_data: bool | None) -> Iterator[Path]:
    """Yield the written file for checks before it is moved to `path`; without `path`, a temporary file."""
    with contextlib.ExitStack() as stack:
        if path is None:
            path = stack.enter_context(temporary_folder()) / "model.onnx"
        file = stack.enter_context(staged_model(model, path, external_data=external_data))
        _check(file)
        yield file


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        remedy = (
            ". This opset has no bfloat16 for it: make the weights float32 (module.float())"
            if "bfloat16" in str(error)
            else ""
        )
        raise ModelError(f"the exported model is not valid ONNX: {error}{remedy}.") from error
