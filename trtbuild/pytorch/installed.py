"""Whether torch, and what comes with it, is installed."""

from __future__ import annotations

from trtbuild.errors import MissingError
from trtbuild.machine import is_importable

__all__ = ["require_torch"]


def require_torch(package: str = "torch") -> None:
    """Check that `package` (torch, or a package that comes with it) is installed.

    Raises:
        MissingError: it is not; the text says how to install it.
    """
    if not is_importable(package):
        raise MissingError(
            f"this needs the package '{package}', which is not installed: "
            "pip install 'trtbuild[torch]'."
        )
