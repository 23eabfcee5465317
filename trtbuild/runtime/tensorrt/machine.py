"""The machine that a plan was built for, and why the plan does not open elsewhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trtbuild.errors import InputError
from trtbuild.runtime.cuda import cuda_driver
from trtbuild.runtime.manifest_beside import recorded_engine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["explain_refusal", "machine_record"]

_WORDS = {
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "driver": "CUDA driver",
}


def machine_record(version: str, device: int = 0) -> dict[str, str]:
    """Describe the machine that plans built here belong to.

    Args:
        version: version of TensorRT.
        device: number of the GPU.

    Returns:
        ``tensorrt``, ``driver``, ``gpu`` and ``compute_capability``; empty texts if unknown.
    """
    driver = cuda_driver()
    gpu = driver.gpus[device] if device < len(driver.gpus) else None
    return {
        "tensorrt": version,
        "driver": driver.version,
        "gpu": gpu.name if gpu else "",
        "compute_capability": gpu.compute_capability if gpu else "",
    }


def explain_refusal(plan: Path, reason: str, here: Mapping[str, str], backend: str) -> str:
    """Say why a plan does not open: TensorRT's own words, the differences, and what to do.

    Args:
        plan: file of the plan.
        reason: TensorRT's error lines.
        here: `machine_record` of this machine.
        backend: name of the backend that tried to open it.
    """
    built: Mapping[str, str] = {}
    with contextlib.suppress(InputError):  # without a manifest only TensorRT's error is known
        record = recorded_engine(plan)
        built = record.details.get("machine", {}) if record is not None else {}
    differs = [
        f"{_WORDS[key]} {built[key]} (here {here[key]})"
        for key in _WORDS
        if built.get(key) and built[key] != here.get(key)
    ]
    sentences = [f"'{plan}' cannot be opened: {reason}."]
    if differs:
        sentences.append(f"It was built for {', '.join(differs)}.")
    if "host executable code" in reason or "host code" in reason:
        sentences.append("If you trust its origin, allow it: --allow-host-code.")
    elif "agic" in reason:
        sentences.append("The file is not a plan, or is damaged.")
    else:
        sentences.append(
            "Plans belong to one TensorRT version and GPU; build it here: "
            f"trtbuild engine MODEL.onnx --int8 --backend {backend}."
        )
    return " ".join(sentences)
