"""An ONNX file is read, checked, and brought into the form that the later stages expect.

The names stand in ``__init__.pyi`` and are loaded when they are asked for: a process that only runs a
network (`trtbuild.runtime.isolated_worker`) does without onnx_ir, which takes longer to import than it runs.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
