"""What a rule raises that has no answer."""

from __future__ import annotations

__all__ = ["NoRuleError"]


class NoRuleError(Exception):
    """This form of an operator has no rule; the text says what about it, as "mode 'cubic'"."""
