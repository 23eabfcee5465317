"""From what the user asked for to an ONNX model: load, prune, make sparse, fold, export."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from trtbuild.progress import silent
from trtbuild.pytorch.export import export_onnx
from trtbuild.pytorch.installed import require_torch
from trtbuild.pytorch.load import load_module
from trtbuild.pytorch.sparsity import check_two_four, make_two_four

if TYPE_CHECKING:
    from torch import nn

    from trtbuild.progress import Progress
    from trtbuild.pytorch.export import ExportResult
    from trtbuild.pytorch.load import LoadedModule
    from trtbuild.pytorch.spec import ExportSpec, MaskSpec

__all__ = ["export_from_spec"]


def export_from_spec(spec: ExportSpec, progress: Progress = silent) -> ExportResult:
    """Do everything that `spec` asks for.

    The order is the one that works: channels are removed while the norms are still there, the 2:4
    pattern is made after that, and folding comes last.

    Raises:
        ModelError: the module cannot be loaded, pruned, traced or exported.
        OptionError: an option that does not fit this module.
        OutputError: the file cannot be written.
    """
    steps = 2 + sum(wish is not None for wish in (spec.prune, spec.mask, spec.sparsity))
    progress("export", 0, steps)
    loaded = load_module(spec.source)
    module, details, warnings = _thinned(spec, loaded.module)
    progress("export", steps - 1, steps)
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
    progress("export", steps, steps)
    if spec.sparsity is not None:
        details["sparse_nodes"] = [asdict(node) for node in check_two_four(result.model)]
    return replace(
        result,
        warnings=(*loaded.warnings, *warnings, *result.warnings),
        details={"source": _source_details(spec, loaded), **details},
    )


def _thinned(spec: ExportSpec, module: nn.Module) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """The module without the channels and weights that shall go; reports and warnings."""
    details: dict[str, Any] = {}
    warnings: list[str] = []
    if spec.prune is not None:
        require_torch("torch_pruning")
        from trtbuild.pytorch.prune import prune_channels  # slow to import

        pruned = prune_channels(module, spec.traced_inputs, spec.prune)
        module = pruned.module
        details["pruning"] = pruned.report.as_dict()
        warnings += pruned.report.notes
    if spec.mask is not None:
        details["masks"] = _masked(module, spec.mask)
        warnings.append("weights were masked without fine-tuning: check the accuracy.")
    if spec.sparsity is not None:
        details["sparse_layers"] = [asdict(layer) for layer in make_two_four(module)]
        warnings.append("2:4 zeros were made without fine-tuning: check the accuracy.")
    return module, details, warnings


def _masked(module: nn.Module, spec: MaskSpec) -> dict[str, Any]:
    """Mask `module` in place; the zeros per layer and in all."""
    from trtbuild.pytorch.prune.masks import mask_globally, mask_weights

    apply = mask_globally if spec.globally else mask_weights
    report = apply(module, spec.amount, method=spec.method)
    return {
        "share": report.total.share,
        "layers": {layer.name: layer.share for layer in report.layers},
    }


def _source_details(spec: ExportSpec, loaded: LoadedModule) -> dict[str, Any]:
    details: dict[str, Any] = {
        "target": spec.source.target,
        "arguments": {key: repr(value) for key, value in spec.source.arguments.items()},
    }
    if loaded.checkpoint is not None:
        details["checkpoint"] = {
            "wrapper": loaded.checkpoint.wrapper,
            "prefix": loaded.checkpoint.prefix,
            "tensors": loaded.checkpoint.num_loaded,
            "missing": list(loaded.checkpoint.missing),
            "unexpected": list(loaded.checkpoint.unexpected),
        }
    return details
