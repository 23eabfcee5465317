"""Layers by patterns of their paths."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["match_layers"]


def match_layers(
    module: nn.Module, patterns: Sequence[str], kinds: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    """The layers of these kinds whose path matches a pattern; a container's path takes its layers.

    Raises:
        OptionError: a pattern matches none.
    """
    layers = {path: child for path, child in module.named_modules() if isinstance(child, kinds)}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matching = {
            path: child
            for path, child in layers.items()
            if fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}.*")
        }
        if not matching:
            near = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.4)
            known = ", ".join(f"'{path}'" for path in near or list(layers)[:3])
            raise OptionError(
                f"the pattern '{pattern}' matches no layer; there are {known or 'none'}."
            )
        found.update(matching)
    return found
