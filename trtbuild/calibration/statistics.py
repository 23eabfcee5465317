"""What was seen of the watched tensors, in two halves so that stability can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrators import Collector
    from trtbuild.data import DataDigest

__all__ = ["Statistics"]


@dataclass(frozen=True)
class Statistics:
    """The statistics of all samples, parted by a bit of each sample's key into two halves.

    The parting depends on content alone, so it is the same for any order, batching and sharding.
    """

    first: Collector
    second: Collector
    data: DataDigest

    def merge(self, other: Statistics) -> Statistics:
        """Everything that either has seen; associative and commutative, exact."""
        return Statistics(
            self.first.merge(other.first),
            self.second.merge(other.second),
            self.data.merge(other.data),
        )

    @property
    def num_samples(self) -> int:
        """How many samples were seen."""
        return self.data.num_samples

    @property
    def together(self) -> Collector:
        """Both halves as one."""
        return self.first.merge(self.second)
