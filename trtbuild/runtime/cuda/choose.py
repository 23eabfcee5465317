"""Chooses the package that reaches the GPU: the one that was named, or the first that is installed."""

from __future__ import annotations

from trtbuild.errors import DeviceError, MissingError, OptionError
from trtbuild.machine import is_importable
from trtbuild.runtime.cuda.device import Device
from trtbuild.runtime.cuda.machine import cuda_driver

__all__ = ["PROVIDERS", "installed_providers", "open_device"]

# Name -> (module to look for, how to install it). `auto` uses this order: torch comes last because
# importing it takes seconds, and cuda-python first because it has wheels and CUDA graphs.
PROVIDERS = {
    "cuda-python": ("cuda.bindings.driver", "pip install 'trtbuild[tensorrt]'"),
    "pycuda": ("pycuda.driver", "pip install 'trtbuild[pycuda]'"),
    "torch": ("torch", "pip install torch"),
}


def installed_providers() -> tuple[str, ...]:
    """Return the providers whose package is installed, in order of preference; imports none of them."""
    return tuple(name for name, (module, _) in PROVIDERS.items() if is_importable(module))


def open_device(provider: str = "auto", index: int = 0) -> Device:
    """Open a GPU.

    Args:
        provider: one of `PROVIDERS`, or ``auto`` for the first that is installed.
        index: number of the GPU among the visible ones.

    Raises:
        OptionError: there is no provider of that name.
        MissingError: the package, the driver or the GPU is missing.
    """
    if provider not in (*PROVIDERS, "auto"):
        raise OptionError(
            f"'{provider}' is not a CUDA provider. Choose auto, {', '.join(PROVIDERS)}."
        )
    driver = cuda_driver()
    if driver.problem:
        raise DeviceError(f"no GPU can be used: {driver.problem}. {driver.remedy}")
    if index >= len(driver.gpus):
        raise DeviceError(
            f"there is no GPU {index}: this machine has {len(driver.gpus)}, counted from 0."
        )
    name = _choose(provider)
    if name == "pycuda":
        from trtbuild.runtime.cuda.pycuda import PyCudaProvider

        return Device(PyCudaProvider(index), index)
    if name == "torch":
        from trtbuild.runtime.cuda.torch import TorchProvider

        return Device(TorchProvider(index), index)
    from trtbuild.runtime.cuda.cuda_python import CudaPythonProvider

    return Device(CudaPythonProvider(index), index)


def _choose(provider: str) -> str:
    installed = installed_providers()
    if provider == "auto":
        if not installed:
            raise MissingError(
                "no package that accesses the GPU is installed. Install one: "
                + ", or ".join(f"{command}" for _, command in PROVIDERS.values())
                + "."
            )
        return installed[0]
    if provider not in installed:
        raise MissingError(f"{provider} is not installed. Install it: {PROVIDERS[provider][1]}.")
    return provider
