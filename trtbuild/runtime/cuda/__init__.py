"""Device memory, streams, events and graphs: one `Device`, over one of three packages."""

from __future__ import annotations

from trtbuild.runtime.cuda.choose import PROVIDERS, open_device
from trtbuild.runtime.cuda.device import Buffer, Device, Pinned
from trtbuild.runtime.cuda.machine import CudaDriver, Gpu, cuda_driver

__all__ = [
    "PROVIDERS",
    "Buffer",
    "CudaDriver",
    "Device",
    "Gpu",
    "Pinned",
    "cuda_driver",
    "open_device",
]
