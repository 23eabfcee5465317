"""TensorRT 10 and 11, and TensorRT for RTX.

The names stand in ``__init__.pyi`` and are loaded when they are asked for: the process of the parser
(`apart_worker`) does without what builds.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
