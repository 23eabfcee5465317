"""NVIDIA's real TensorRT bindings over a library of our own, so that our calls can be seen without a GPU.

What is real: the bindings' classes, argument checks, callbacks, lifetimes, and the CUDA packages for Python.
What stands in: `nvinfer.c` exports the symbols that the bindings link against, `native.py` makes C++ objects
in Python, `builder.py` and `runtime.py` answer for them, `libcuda.c` is a CUDA driver whose device memory is
host memory. A plan holds the ONNX file and is run by ONNX Runtime, so that right numbers come out when, and
only when, every address, shape and copy was right. It says nothing about what TensorRT would accept, about
accuracy of its kernels, or about speed.

What TensorRT accepts, the real parser and builder of TensorRT for RTX say: scenarios that only build run with
it too (`real.py`, the fixture `native`), and where the two disagreed the stand-in was corrected.

`server.py` is one process per TensorRT version that has everything imported and forks for each scenario.
"""
