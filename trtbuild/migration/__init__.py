"""From TensorRT 10's calibration caches to Q/DQ networks for 11, and back for DLA and TensorRT 10.

The names stand in ``__init__.pyi`` and are loaded when they are asked for: reading a network needs one file
of this package.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
