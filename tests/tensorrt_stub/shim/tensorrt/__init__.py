"""What the `tensorrt` wheel is: a second name for the bindings. The wheel itself needs the library."""

from tensorrt_bindings import *  # noqa: F403
from tensorrt_bindings import __version__ as __version__
