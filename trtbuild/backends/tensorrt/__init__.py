"""TensorRT 10 and 11, and TensorRT for RTX.

The public names are in ``__init__.pyi`` and load on first use: the parser's process (`apart_worker`) does not
need the modules that build.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
