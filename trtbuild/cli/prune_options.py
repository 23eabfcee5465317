"""The options that say which channels go, shared by ``export``, ``prune`` and ``engine``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from trtbuild.errors import OptionError
from trtbuild.pytorch.spec import CRITERIA, SCOPES, PruneSpec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["prune_options"]

_BY_DATA = "taylor"
"""Ranks by gradients of a loss, which a command line cannot give; the Python API takes one."""


def prune_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--prune`` and its settings; the command gets ``prune``, a `PruneSpec` or None."""

    @click.option("--prune", "ratio", type=float, metavar="RATIO",
                  help="Remove this share of the channels, 0.5 for half.")  # fmt: skip
    @click.option("--prune-layer", "layers", multiple=True, metavar="PATTERN=RATIO",
                  help="Another share for some layers; the first match wins. Repeatable.")  # fmt: skip
    @click.option("--prune-ignore", "ignore", multiple=True, metavar="PATTERN",
                  help="Layers that keep their width. Repeatable.")  # fmt: skip
    @click.option("--prune-criterion", "criterion", default="l2", show_default=True,
                  type=click.Choice([name for name in CRITERIA if name != _BY_DATA]),
                  help="How channels are ranked.")  # fmt: skip
    @click.option("--prune-scope", "scope", type=click.Choice(SCOPES), default="local",
                  show_default=True, help="Among which channels they are ranked.")  # fmt: skip
    @click.option("--prune-round-to", "round_to", type=click.IntRange(min=1),
                  help="Widths are multiples of this; by default 32, less for narrow nets.")  # fmt: skip
    @click.option("--prune-heads", "head_ratio", type=float, default=0.0, metavar="RATIO",
                  help="Remove this share of whole attention heads.")  # fmt: skip
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        ratio: float | None,
        layers: tuple[str, ...],
        ignore: tuple[str, ...],
        criterion: str,
        scope: str,
        round_to: int | None,
        head_ratio: float,
        **kwargs: Any,
    ) -> Any:
        spec = None
        if ratio is not None or layers or head_ratio:
            spec = PruneSpec(
                ratio=ratio or 0.0,
                criterion=criterion,
                scope=scope,
                round_to=round_to,
                layer_ratios=tuple(_layer_ratio(text) for text in layers),
                ignore=ignore,
                head_ratio=head_ratio,
            )
        return command(*args, prune=spec, **kwargs)

    return wrapped


def _layer_ratio(text: str) -> tuple[str, float]:
    pattern, _, number = text.rpartition("=")
    try:
        if pattern:
            return pattern, float(number)
    except ValueError:
        pass
    raise OptionError(f"--prune-layer '{text}' is not PATTERN=RATIO, for example layer4.*=0.7.")
