"""The user's options, one recipe per job; the command line, recipe files and scripts make them.

The public names are in ``__init__.pyi`` and load on first use: a command needs only one recipe, and making
all classes takes longer than reading the command's arguments.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
