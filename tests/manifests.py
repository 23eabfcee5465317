"""A manifest without a build: the fields that a test sets, and `REST` for all others."""

from __future__ import annotations

from typing import Any

MODEL = {"file": "net.onnx", "digest": "", "graph": "", "weights": "", "inputs": [], "outputs": []}
REST = {
    "schema": "trtbuild.manifest",
    "version": 1,
    "name": "net",
    "passed": True,
    "model": MODEL,
    "data": {
        "random": False,
        "preprocess": None,
        "calibration": None,
        "calibration_digest": None,
        "verification": "",
        "verification_digest": "",
    },
    "options": {"float": [], "backend": "tensorrt", "batch_size": 1, "seed": 0, "gate": {}},
    "stages": [],
    "calibration": None,
    "layers": [],
    "files": {},
    "verification": {},
    "layers_at_fault": None,
    "latency": {},
    "versions": {},
    "machine": {},
}


def manifest(engine: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """Return a manifest, of JSON types, of a build of `engine` (its ``file``, and more)."""
    return {**REST, "engine": {"backend": "tensorrt", "why": "", "details": {}, **engine}, **parts}
