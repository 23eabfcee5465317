"""Reads an ONNX file, checks it, and brings it into the form that the later stages expect.

The public names are listed in ``__init__.pyi`` and loaded on first use: a process that only runs a network
(`trtbuild.runtime.isolated_worker`) never imports onnx_ir, whose import takes longer than the run.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
