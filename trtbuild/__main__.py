"""The program ``trtbuild``, also as ``python -m trtbuild``."""

from __future__ import annotations

import sys

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Import the command line and run it; Ctrl-C during the import ends the program without a traceback."""
    try:
        from trtbuild.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
