"""TensorRT 10's calibration caches become Q/DQ networks for TensorRT 11, and back for DLA and TensorRT 10.

The public names are in ``__init__.pyi`` and load on first use, because reading a network needs only one file
of this package.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
