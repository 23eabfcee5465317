"""The part of a batch that a comparison reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

__all__ = ["LabelledBatch"]


class LabelledBatch(Protocol):
    """The part of a batch that a comparison reads."""

    @property
    def feeds(self) -> Mapping[str, np.ndarray]:
        """Input name to array; the first axis is the images."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """Class of each image, int ``[images]``."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Name of each image, for the list of the worst images."""
        ...
