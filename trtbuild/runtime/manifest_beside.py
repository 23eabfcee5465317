"""An engine's entry in the manifest beside it; `trtbuild.manifest` reads whole manifests."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read by `decode`
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError, decoding
from trtbuild.json_codec import decode, load_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "PORTABLE_SUFFIX",
    "QDQ_SUFFIX",
    "RTX_SUFFIX",
    "EngineRecord",
    "manifest_name",
    "manifest_of",
    "recorded_engine",
]

PORTABLE_SUFFIX = ".onnxruntime.onnx"
"""Ending of the file name of an engine for ONNX Runtime."""
QDQ_SUFFIX = ".int8.onnx"
"""Ending of the file name of a network with explicit Q/DQ."""
RTX_SUFFIX = ".rtx.plan"
"""Ending of the file name of a plan for TensorRT for RTX."""


@dataclass(frozen=True)
class EngineRecord:
    """An engine in the manifest of its build.

    Attributes:
        backend: name of the backend that built it.
        why: why that backend was chosen.
        file: its file, in the manifest's folder.
        not_opened: why it was not opened where it was built; empty if it was.
        details: the backend's own entries, as JSON types.
    """

    backend: str
    why: str
    file: str
    not_opened: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def manifest_name(stem: str) -> str:
    """Return the file name of the manifest of a build whose files begin with `stem`."""
    return f"{stem}.manifest.json"


def manifest_of(engine: Path) -> Path:
    """Return the path of the manifest beside an engine or Q/DQ network; all files of a build share it."""
    for suffix in (PORTABLE_SUFFIX, RTX_SUFFIX, QDQ_SUFFIX, engine.suffix):
        stem = engine.name.removesuffix(suffix)
        if stem != engine.name:
            return engine.with_name(manifest_name(stem))
    return engine.with_name(manifest_name(engine.name))


def recorded_engine(engine: Path) -> EngineRecord | None:
    """Return an engine's entry in the manifest beside it, without comparing digests; None if it has none.

    Raises:
        InputError: there is no manifest, or it is damaged.
    """
    manifest = manifest_of(engine)
    with decoding(InputError, f"the manifest '{manifest}' is damaged"):
        content = load_json(manifest)
        for one in (content["engine"], content.get("also")):
            if one and one["file"] == engine.name:
                return decode(EngineRecord, one, f"'{manifest}'", allow_unknown=True)
    return None
