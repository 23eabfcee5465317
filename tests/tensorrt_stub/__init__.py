"""NVIDIA's real TensorRT bindings over a library of our own, so that our calls can be seen without a GPU.

What is real: the bindings' classes, argument checks, callbacks, lifetimes, and the CUDA packages for Python.
What stands in: `nvinfer.c` exports the symbols that the bindings link against, `native.py` makes C++ objects
in Python, `builder.py` and `runtime.py` implement them, `libcuda.c` is a CUDA driver whose device memory is
host memory. A plan holds the ONNX file, and ONNX Runtime runs it, so that the numbers are right if and only
if every address, shape and copy is right. The stand-in says nothing about what TensorRT would accept, about
accuracy of its kernels, or about speed.

The real parser and builder of TensorRT for RTX say what TensorRT accepts: scenarios that only build also run
with them (`real.py`, the fixture `native`); where the two disagreed, the stand-in was corrected.

`server.py` is one process per TensorRT version that has everything imported and forks for each scenario.
"""
