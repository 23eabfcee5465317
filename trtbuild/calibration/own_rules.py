"""Threshold rules of the user's own: known to `calibrators` under the name that the option has for them."""

from __future__ import annotations

from calibrators import METHODS, PRESETS, add_method
from trtbuild.errors import OptionError, in_one_tree
from trtbuild.options.calibrate import AS_TENSORRT
from trtbuild.options.values import IN_MEMORY
from trtbuild.plugins import CALIBRATOR, load

__all__ = ["know_rule"]


def know_rule(method: str) -> None:
    """Make the rule `method` known to `calibrators`, where it is none of ours.

    Args:
        method: ``package.module:function``, ``script.py:function``, or the name of an installed calibrator.

    Raises:
        OptionError: there is none of that name, it cannot be imported, or is no function.
    """
    if method in METHODS or method in PRESETS or method == AS_TENSORRT:
        return
    if method.startswith(IN_MEMORY):
        return  # known since its options were made
    with in_one_tree():
        add_method(method, load(CALIBRATOR, method, OptionError))
