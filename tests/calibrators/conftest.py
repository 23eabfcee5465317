"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# The first value counted loads a compiler: no example has a deadline.
settings.register_profile("calibrators", deadline=None)
settings.load_profile("calibrators")
