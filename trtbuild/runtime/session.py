"""The protocol of every object that runs a network: run, close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from trtbuild.model.signature import TensorSpec

__all__ = ["Feeds", "Session", "SessionAround"]

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


class SessionAround:
    """Another session in a form of its own; subclasses change what `run` gets or gives.

    Args:
        session: the other session, which is closed with this one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The other session's inputs."""
        return self._session.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The other session's outputs."""
        return self._session.outputs

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the other session."""
        return self._session.run(feeds)

    def close(self) -> None:
        """Close the other session."""
        self._session.close()
