"""INT8 engines for NVIDIA TensorRT 10 and 11, built from float networks and verified against them.

The public interface (docs/python-api.md) is in ``__init__.pyi``. A module loads when one of its
names is first used, so ``import trtbuild`` itself costs nothing.
"""

from __future__ import annotations

import os

import lazy_loader

# ONNX Runtime 1.29 and newer reports what it opens and runs to its vendor, and leaves files in TMPDIR and in
# the user's cache. It reads this variable when it loads; a value that is already set is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# In NumPy with OpenBLAS, each thread spins for 0.03 s after the import of NumPy and after each product, and
# takes a core from threads with work. 2 ** 4 cycles are the minimum.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
