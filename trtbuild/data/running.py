"""Runs samples through a network, and names the sample in an error."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from trtbuild.data.batching import Batch
from trtbuild.errors import ExecutionError
from trtbuild.whereabouts import busy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from trtbuild.runtime.session import Feeds, Session

__all__ = ["Runnable", "naming", "run_batch"]

_OUT_OF_BOUNDS = "out of data bounds"
_WRONG_DIMS = "Got invalid dimensions for input"


class Runnable(Protocol):
    """Feeds, and the names of their samples."""

    @property
    def feeds(self) -> Mapping[str, np.ndarray]:
        """Input name to array."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of the samples."""
        ...


@contextlib.contextmanager
def naming(names: Sequence[str], feeds: Feeds) -> Iterator[None]:
    """Add the samples' names to errors of ONNX Runtime in the block.

    Args:
        names: names of the samples, at least one.
        feeds: the feeds that are run.

    Raises:
        ExecutionError: the error of the block, with the names.
    """
    try:
        with busy("ran", names):
            yield
    except ExecutionError as error:
        if not error.reason:
            raise
        last = "" if len(names) == 1 else f" to '{names[-1]}'"
        text = f"ONNX Runtime cannot run the network on '{names[0]}'{last}: {error.reason}."
        if _OUT_OF_BOUNDS in error.reason:
            text += _which_ids(feeds)
        if _WRONG_DIMS in error.reason:
            text += _OTHER_AXIS
        raise ExecutionError(text, error.reason) from error


_OTHER_AXIS = (
    " If the samples run along another axis than the first, say which: --batch-axis NAME:AXIS."
)


def _which_ids(feeds: Mapping[str, np.ndarray]) -> str:
    """The ranges of integers: an index beyond a table is usually a token of another vocabulary."""
    spans = [
        f"'{name}' from {array.min()} to {array.max()}"
        for name, array in feeds.items()
        if array.dtype.kind in "iu" and array.size
    ]
    return (
        f" It holds {', '.join(spans)}; give the ids of this network's own vocabulary."
        if spans
        else ""
    )


def run_batch(session: Session, batch: Runnable) -> Mapping[str, np.ndarray]:
    """Run a batch; if it fails, run its samples one by one to find the one at fault.

    Args:
        session: the network.
        batch: the batch; if it is not a `Batch`, the error names all of it.

    Raises:
        ExecutionError: it names the sample.
    """
    try:
        with busy("ran", batch.names):
            return session.run(batch.feeds)
    except ExecutionError:
        if isinstance(batch, Batch):
            _try_each(session, batch)
        with naming(batch.names, batch.feeds):
            raise


def _try_each(session: Session, batch: Batch) -> None:
    """Raise the error of the first sample that fails alone, if others succeed.

    In a network with a fixed batch, no sample runs alone.
    """
    failed: list[tuple[Batch, ExecutionError]] = []
    for one in batch.samples():
        try:
            with busy("ran", one.names):
                session.run(one.feeds)
        except ExecutionError as found:
            failed.append((one, found))
    if 0 < len(failed) < len(batch.names):
        first, error = failed[0]
        with naming(first.names, first.feeds):
            raise error
