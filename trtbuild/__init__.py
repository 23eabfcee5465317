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

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
