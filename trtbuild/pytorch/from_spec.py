"""Loads, prunes, masks and exports a module as a request says (`trtbuild.pytorch.spec.ExportSpec`)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.progress import silent
from trtbuild.pytorch.cost import count_cost
from trtbuild.pytorch.export import export_onnx
from trtbuild.pytorch.export_steps import CostChange, ExportSteps, MaskShares, SourceReport
from trtbuild.pytorch.inputs import bind_inputs
from trtbuild.pytorch.installed import require_torch
from trtbuild.pytorch.load import load_module
from trtbuild.pytorch.masks import mask_globally, mask_slices, mask_weights
from trtbuild.pytorch.sparsity import check_two_four, make_two_four

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from torch import nn

    from trtbuild.progress import Progress
    from trtbuild.pytorch.export import ExportResult
    from trtbuild.pytorch.load import LoadedModule
    from trtbuild.pytorch.spec import ExportSpec, InputSpec, MaskSpec

    Timing: TypeAlias = Callable[
        [nn.Module, Sequence[InputSpec]], AbstractContextManager[Callable[[nn.Module], float]]
    ]

__all__ = ["export_from_spec"]


def export_from_spec(
    spec: ExportSpec, progress: Progress = silent, timing: Timing | None = None
) -> ExportResult:
    """Load, prune, mask and export a module as `spec` says.

    The order matters: channels are removed while the norms are still there, then the 2:4 pattern is made,
    and folding comes last.

    Args:
        spec: what to do.
        progress: called at every step.
        timing: measures latency for a latency budget: called with the dense module and its inputs, it gives a
            context, in which a function returns a module's latency as a share of the dense one's.

    Raises:
        ModelError: the module cannot be loaded, pruned, traced or exported.
        OptionError: an option does not fit this module.
        OutputError: the file cannot be written.
    """
    total = 2 + sum(wish is not None for wish in (spec.prune, spec.mask, spec.sparsity))
    progress("export", 0, total)
    loaded = load_module(spec.source)
    module, steps, warnings = _thinned(spec, loaded, timing)
    progress("export", total - 1, total)
    result = export_onnx(
        module,
        spec.traced_inputs,
        path=spec.path,
        fold=spec.fold,
        opset=spec.opset,
        force_opset=spec.force_opset,
        output_names=spec.output_names,
        external_data=spec.external_data,
    )
    progress("export", total, total)
    if spec.sparsity is not None:
        steps = replace(steps, sparse_nodes=tuple(check_two_four(result.model)))
    warnings = [*loaded.warnings, *warnings, *result.warnings]
    return replace(result, warnings=tuple(warnings), steps=steps)


def _thinned(
    spec: ExportSpec, loaded: LoadedModule, timing: Timing | None
) -> tuple[nn.Module, ExportSteps, list[str]]:
    """The module with channels and weights removed as `spec` says; what was done, and warnings."""
    module = loaded.module
    cost = count_cost(module, bind_inputs(module, spec.traced_inputs))
    steps = ExportSteps(source=_source(spec, loaded), cost=CostChange(cost, cost))
    warnings: list[str] = []
    if spec.prune is not None:
        require_torch("torch_pruning")
        from trtbuild.pytorch.prune import prune_channels  # imported here: it is slow to import

        inputs = spec.traced_inputs
        with contextlib.ExitStack() as stack:
            latency = None
            if spec.prune.latency is not None and timing is not None:
                latency = stack.enter_context(timing(module, inputs))
            pruned = prune_channels(module, inputs, spec.prune, latency=latency)
        module = pruned.module
        steps = replace(steps, pruning=pruned.report, cost=CostChange(cost, pruned.report.after))
        warnings += pruned.report.notes
    if spec.mask is not None:
        steps = replace(steps, masks=_masked(module, spec.mask))
        warnings.append("weights were masked without fine-tuning: check the accuracy.")
    if spec.sparsity is not None:
        steps = replace(steps, sparse_layers=make_two_four(module))
        warnings.append("2:4 zeros were made without fine-tuning: check the accuracy.")
    return module, steps, warnings


def _masked(module: nn.Module, spec: MaskSpec) -> MaskShares:
    """Mask `module` in place; return the share of zeros per layer and in total."""
    if spec.dim is not None:
        method = "ln" if spec.method == "l1" else spec.method
        report = mask_slices(
            module, spec.amount, method=method, n=spec.norm, dim=spec.dim, layers=spec.layers
        )
    else:
        apply = mask_globally if spec.globally else mask_weights
        report = apply(module, spec.amount, method=spec.method, layers=spec.layers)
    return MaskShares(report.total.share, {one.name: one.share for one in report.layers})


def _source(spec: ExportSpec, loaded: LoadedModule) -> SourceReport:
    arguments = {key: repr(value) for key, value in spec.source.arguments.items()}
    return SourceReport(spec.source.name, arguments, loaded.checkpoint)
