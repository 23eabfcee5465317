"""``python -m trtbuild``."""

from __future__ import annotations

from trtbuild.cli.main import main

main()
