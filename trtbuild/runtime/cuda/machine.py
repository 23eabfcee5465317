"""The CUDA driver and the GPUs of this machine, as the driver library reports them."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

__all__ = ["DRIVER_LIBRARY", "CudaDriver", "Gpu", "cuda_driver"]

DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_DEVICE = 100
# CUdevice_attribute: the two halves of the compute capability.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, compute capability such as ``8.9``, and memory."""

    index: int
    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class CudaDriver:
    """The CUDA driver of this machine.

    Attributes:
        version: highest CUDA version that the driver supports, such as ``13.0``; empty without a driver.
        gpus: the GPUs that it can reach.
        problem: one sentence on why no GPU can be used; empty if one can.
        remedy: what to do about it; empty without a problem.
    """

    version: str
    gpus: tuple[Gpu, ...]
    problem: str = ""
    remedy: str = ""


def cuda_driver() -> CudaDriver:
    """Ask the driver library, without any Python package. Never raises an error."""
    try:
        library = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return CudaDriver(
            "",
            (),
            f"the CUDA driver library '{DRIVER_LIBRARY}' is not here",
            "Install NVIDIA's driver.",
        )
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    code = library.cuInit(0)
    count = ctypes.c_int()
    if code == 0:
        code = library.cuDeviceGetCount(ctypes.byref(count))
    if code == _NO_DEVICE or (code == 0 and not count.value):
        return CudaDriver(
            version,
            (),
            "the CUDA driver sees no GPU",
            "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES; in a container, give it the GPU (--gpus all).",
        )
    if code:
        return CudaDriver(
            version,
            (),
            f"the CUDA driver does not start (error {code})",
            "Run `nvidia-smi`; after a driver update, restart the machine.",
        )
    return CudaDriver(version, tuple(_gpu(library, index) for index in range(count.value)))


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, number, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    halves = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        halves.append(number.value)
    return Gpu(index, name.value.decode(), f"{halves[0]}.{halves[1]}", memory.value)
