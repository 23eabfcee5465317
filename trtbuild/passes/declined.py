"""How a pass says why it leaves a near match as it is."""

from __future__ import annotations

__all__ = ["Declined"]


class Declined(Exception):  # noqa: N818 - a verdict on a match, not a fault
    """A near match that stays as it is.

    Args:
        reason: one sentence without a full stop, for example "its output is read twice".
    """
