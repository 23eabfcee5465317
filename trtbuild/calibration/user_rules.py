"""Threshold rules of the user: registered in `calibrators` under the name given in the option."""

from __future__ import annotations

from calibrators import METHODS, PRESETS, add_method
from trtbuild.errors import OptionError, in_one_tree
from trtbuild.options.calibrate import AS_TENSORRT
from trtbuild.options.values import IN_MEMORY
from trtbuild.plugins import CALIBRATOR, load

__all__ = ["know_rule"]


def know_rule(method: str) -> None:
    """Register the rule `method` in `calibrators`, unless it is built in.

    Args:
        method: ``package.module:function``, ``script.py:function``, or the name of an installed calibrator.

    Raises:
        OptionError: there is no such rule, it cannot be imported, or it is not a function.
    """
    if method in METHODS or method in PRESETS or method == AS_TENSORRT:
        return
    if method.startswith(IN_MEMORY):
        return  # registered when its options were made
    with in_one_tree():
        add_method(method, load(CALIBRATOR, method, OptionError))
