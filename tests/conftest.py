"""What all tests share: where the real networks and images are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TRTBUILD_SHARED", PROJECT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real networks, images and cases; skips the test where it is absent."""
    if not (SHARED / "README.md").is_file():
        pytest.skip(f"needs the folder of real networks and images, '{SHARED}'")
    return SHARED
