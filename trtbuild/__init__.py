"""INT8 engines for NVIDIA TensorRT 10 and 11, built from float networks and verified against them.

The public interface (docs/python-api.md) stands in ``__init__.pyi``. A module is loaded when one of its
names is first asked for, so that ``import trtbuild`` costs nothing.
"""

from __future__ import annotations

import os

import lazy_loader

# ONNX Runtime 1.29 and newer tells its maker what it opens and runs, and leaves files in TMPDIR and in the
# cache of the user. It reads this when it is loaded; a value that is set already stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Where NumPy brings OpenBLAS, each of its threads waits for work at full speed for 0.03 s, from the import of
# NumPy on and after each product, and takes a core from those that have work. 2 ** 4 cycles are the least.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
