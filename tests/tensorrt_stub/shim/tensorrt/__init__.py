"""Like the `tensorrt` wheel, a second name for the bindings; the wheel itself needs the library."""

from tensorrt_bindings import *  # noqa: F403
from tensorrt_bindings import __version__ as __version__
