"""The protocol of every object that runs a network: run, close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from trtbuild.model.signature import TensorSpec

__all__ = ["Feeds", "Session"]

Feeds: TypeAlias = "Mapping[str, np.ndarray]"


class Session(Protocol):
    """An opened network. Only one thread at a time may call `run`."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The inputs of `run`, in order."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The outputs of `run`, in order."""
        ...

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run once; name -> array in, name -> array out."""
        ...

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        ...
