"""Layers with weights: their kinds, and selection by pattern."""

from __future__ import annotations

import difflib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CONVOLUTIONS", "LAYERS", "TRANSPOSED", "is_depthwise", "match_layers"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def is_depthwise(module: nn.Module) -> bool:
    """Return whether `module` is a convolution that computes every output channel in a group of its own."""
    return bool(getattr(module, "groups", 1) == getattr(module, "out_channels", 0) > 1)


def match_layers(
    module: nn.Module, patterns: Sequence[str], kinds: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    """Return the layers of these kinds that match a pattern; a container's path matches its layers.

    Args:
        module: the module.
        patterns: a path or a class (``Conv2d``), a glob over either, or ``re:`` and a regular expression that
            matches the whole path.
        kinds: classes of layers.

    Raises:
        OptionError: a pattern matches no layer, or is not a regular expression.
    """
    layers = {path: child for path, child in module.named_modules() if isinstance(child, kinds)}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        is_meant = _meaning_of(pattern)
        matching = {path: child for path, child in layers.items() if is_meant(path, child)}
        if not matching:
            near = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.4)
            known = ", ".join(f"'{path}'" for path in near or list(layers)[:3])
            raise OptionError(
                f"the pattern '{pattern}' matches no layer; there are {known or 'none'}."
            )
        found.update(matching)
    return found


def _meaning_of(pattern: str) -> Callable[[str, nn.Module], bool]:
    """Return a function of path and layer that says whether the pattern matches."""
    if pattern.startswith("re:"):
        try:
            expression = re.compile(pattern.removeprefix("re:"))
        except re.error as error:
            raise OptionError(f"'{pattern}' is not a regular expression: {error}.") from error
        return lambda path, _: expression.fullmatch(path) is not None
    return lambda path, child: any(
        fnmatchcase(text, glob)
        for text, glob in (
            (path, pattern), (path, f"{pattern}.*"), (type(child).__name__, pattern)
        )
    )  # fmt: skip
