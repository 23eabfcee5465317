"""The front end for PyTorch: loads, prunes and folds a module, and exports it to ONNX.

Every file here except `spec` imports torch at its top. They are imported on first use of one of the names
below, so ``import trtbuild.pytorch`` costs nothing; without torch, the first use of a name raises
`MissingError`, which says what to install.

    from trtbuild.pytorch import ExportSpec, InputSpec, ModuleSource, export_from_spec

    result = export_from_spec(
        ExportSpec(ModuleSource("pkg.models:factory", weights=Path("w.pt")), (InputSpec((1, 3, 224, 224)),))
    )
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trtbuild.pytorch.installed import require_torch

if TYPE_CHECKING:
    from trtbuild.pytorch.export import ExportResult, export_onnx
    from trtbuild.pytorch.fold import FoldReport, FoldResult, fold_norms
    from trtbuild.pytorch.from_spec import export_from_spec
    from trtbuild.pytorch.load import LoadedModule, load_module, open_module
    from trtbuild.pytorch.spec import ExportSpec, InputSpec, ModuleSource

__all__ = [
    "ExportResult",
    "ExportSpec",
    "FoldReport",
    "FoldResult",
    "InputSpec",
    "LoadedModule",
    "ModuleSource",
    "export_from_spec",
    "export_onnx",
    "fold_norms",
    "load_module",
    "open_module",
    "require_torch",
]

_HOMES = {
    "ExportResult": "export",
    "ExportSpec": "spec",
    "FoldReport": "fold",
    "FoldResult": "fold",
    "InputSpec": "spec",
    "LoadedModule": "load",
    "ModuleSource": "spec",
    "export_from_spec": "from_spec",
    "export_onnx": "export",
    "fold_norms": "fold",
    "load_module": "load",
    "open_module": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    home = _HOMES[name]
    if home != "spec":
        require_torch()
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
