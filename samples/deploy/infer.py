"""Run a TensorRT plan: needs tensorrt, cuda-python or pycuda, and numpy; nothing of trtbuild.

    python infer.py resnet20.plan images.npz -o scores.npz
    python infer.py portable.plan images.npz --allow-host-code

`images.npz` holds one array for each input, by name; a `.npy` file is the only input. Works with TensorRT 10
and 11, with any batch that an optimization profile of the plan covers. Where only the lean runtime is
installed (`tensorrt_lean`, a tenth of the size), it runs version compatible plans only.

Open only plans that you trust: a plan is machine code.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import sys
from pathlib import Path

import numpy as np


def find_tensorrt():
    """Return the full runtime, else the lean one."""
    for name in ("tensorrt", "tensorrt_lean"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    sys.exit("install tensorrt, or tensorrt_lean for version compatible plans")


trt = find_tensorrt()


class CudaPython:
    """Device memory and one stream through NVIDIA's cuda-python, in the primary context."""

    def __init__(self):
        from cuda.bindings import driver

        self.driver = driver
        self._call("cuInit", 0)
        self.device = self._call("cuDeviceGet", 0)
        self._call("cuCtxPushCurrent", self._call("cuDevicePrimaryCtxRetain", self.device))
        # 1: independent of the default stream
        self.stream = int(self._call("cuStreamCreate", 1))
        self.memory = []

    def _call(self, function, *arguments):
        code, *results = getattr(self.driver, function)(*arguments)
        if int(code):
            sys.exit(f"{function} failed: {code.name}")
        return results[0] if results else None

    def allocate(self, nbytes):
        """Return the address of so many bytes, which `close` gives back."""
        self.memory.append(int(self._call("cuMemAlloc", max(1, nbytes))))
        return self.memory[-1]

    def upload(self, address, array):
        """Copy an array to the device, behind what the stream does."""
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self.stream)

    def download(self, array, address):
        """Copy device memory into an array, which holds it after `wait`."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self.stream)

    def wait(self):
        """Wait for all work of the stream."""
        self._call("cuStreamSynchronize", self.stream)

    def close(self):
        """Give memory, stream and context back."""
        for address in self.memory:
            self._call("cuMemFree", address)
        self._call("cuStreamDestroy", self.stream)
        self._call("cuCtxPopCurrent")
        self._call("cuDevicePrimaryCtxRelease", self.device)


class PyCuda:
    """The same through pycuda; ``pycuda.autoinit`` would make a second context beside TensorRT's."""

    def __init__(self):
        import pycuda.driver

        self.driver = pycuda.driver
        self.driver.init()
        self.context = self.driver.Device(0).retain_primary_context()
        self.context.push()
        self.owned_stream = self.driver.Stream()
        self.stream = self.owned_stream.handle
        self.memory = []

    def allocate(self, nbytes):
        self.memory.append(self.driver.mem_alloc(max(1, nbytes)))
        return int(self.memory[-1])

    def upload(self, address, array):
        self.driver.memcpy_htod_async(address, array, self.owned_stream)

    def download(self, array, address):
        self.driver.memcpy_dtoh_async(array, address, self.owned_stream)

    def wait(self):
        self.owned_stream.synchronize()

    def close(self):
        for memory in self.memory:
            memory.free()
        del self.owned_stream
        self.driver.Context.pop()
        self.context.detach()
        # detach leaves a primary context current; pop it from the driver's own stack.
        ctypes.CDLL("libcuda.so.1").cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def open_gpu():
    """Open the GPU through the first of both packages that is installed."""
    for kind in (CudaPython, PyCuda):
        try:
            return kind()
        except ModuleNotFoundError:
            continue
    sys.exit("install cuda-python or pycuda")


def load_engine(path, logger, allow_host_code=False):
    """Deserialize a plan; if it does not fit, TensorRT returns None and logs the reason."""
    if hasattr(trt, "init_libnvinfer_plugins"):  # the lean runtime has no plugins
        trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = allow_host_code
    engine = runtime.deserialize_cuda_engine(Path(path).read_bytes())
    if engine is None:
        sys.exit(
            f"'{path}' was built for another TensorRT or GPU, is damaged, or is version compatible and needs "
            "--allow-host-code; see the lines above, or build it here"
        )
    return engine


def infer(engine, gpu, feeds):
    """Run once: name -> array in, name -> array out. Output shapes must follow from input shapes."""
    context = engine.create_execution_context()
    if context is None:
        sys.exit("not enough device memory for this engine")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    held = []  # arrays must live until the stream is synchronized
    for name in inputs:
        array = np.ascontiguousarray(feeds[name], trt.nptype(engine.get_tensor_dtype(name)))
        if not context.set_input_shape(name, array.shape):
            sys.exit(f"the engine does not take {array.shape} for '{name}'")
        held.append(array)
        address = gpu.allocate(array.nbytes)
        gpu.upload(address, array)
        context.set_tensor_address(name, address)
    outputs, addresses = {}, {}
    for name in set(names) - set(inputs):
        dtype = trt.nptype(engine.get_tensor_dtype(name))
        outputs[name] = np.empty(tuple(context.get_tensor_shape(name)), dtype)
        addresses[name] = gpu.allocate(outputs[name].nbytes)
        context.set_tensor_address(name, addresses[name])
    if not context.execute_async_v3(gpu.stream):
        sys.exit("the execution failed")
    for name, array in outputs.items():
        gpu.download(array, addresses[name])
    gpu.wait()
    return outputs


def main(arguments=None):
    """Read the arguments, run once, write the outputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan")
    parser.add_argument(
        "inputs", help=".npz with an array for each input, or .npy for the only one"
    )
    parser.add_argument("-o", "--output", help=".npz to write")
    parser.add_argument(
        "--allow-host-code",
        action="store_true",
        help="run the host code of a version compatible plan",
    )
    options = parser.parse_args(arguments)
    gpu = open_gpu()
    engine = load_engine(options.plan, trt.Logger(trt.Logger.WARNING), options.allow_host_code)
    loaded = np.load(options.inputs)
    feeds = dict(loaded) if hasattr(loaded, "files") else {engine.get_tensor_name(0): loaded}
    outputs = infer(engine, gpu, feeds)
    gpu.close()
    for name, array in outputs.items():
        print(f"{name}: {array.dtype} {array.shape}, largest at {array.argmax()}")
    if options.output:
        np.savez(options.output, **outputs)


if __name__ == "__main__":
    main()
