"""From what the user asked for to an ONNX model: load, prune, make sparse, fold, export."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trtbuild.progress import silent
from trtbuild.pytorch.export import export_onnx
from trtbuild.pytorch.load import load_module

if TYPE_CHECKING:
    from trtbuild.progress import Progress
    from trtbuild.pytorch.export import ExportResult
    from trtbuild.pytorch.load import LoadedModule
    from trtbuild.pytorch.spec import ExportSpec

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
    stages = 2
    progress("export", 0, stages)
    loaded = load_module(spec.source)
    progress("export", 1, stages)
    result = export_onnx(
        loaded.module,
        spec.inputs,
        path=spec.path,
        fold=spec.fold,
        opset=spec.opset,
        force_opset=spec.force_opset,
        output_names=spec.output_names,
        external_data=spec.external_data,
    )
    progress("export", stages, stages)
    return replace(
        result,
        warnings=(*loaded.warnings, *result.warnings),
        details={"source": _source_details(spec, loaded), **result.details},
    )


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
