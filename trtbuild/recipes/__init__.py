"""What the user asked for, one recipe a job; the command line, recipe files and scripts make these.

The names stand in ``__init__.pyi`` and are loaded when they are asked for: a command needs one of them, and
making the classes of all takes longer than reading its arguments.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
