"""The cost of choosing one tensor's threshold: the search, its specification, and the whole rule.

    python benchmarks/entropy_search.py

Milliseconds of CPU per tensor (median of the rounds), for histograms of 2048 bins and 128 levels.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from calibrators import Histogram, amax_of
from calibrators.entropy import search
from calibrators.entropy_reference import search as specified

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, SLOW_ROUNDS = 50, 2


def tensors() -> dict[str, np.ndarray]:
    """Kinds of activations: float32 values."""
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal(1_000_000, np.float32)
    return {
        "Gaussian": gaussian,
        "ReLU": np.maximum(gaussian, 0),
        "heavy tails": rng.standard_t(3, 1_000_000).astype(np.float32),
        "one outlier": np.append(gaussian, np.float32(1000)),
    }


def milliseconds(function: Callable[[], object], rounds: int) -> float:
    """CPU milliseconds of one call."""
    function()  # fills the caches
    durations = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        durations.append(time.process_time() - start)
    return 1000 * statistics.median(durations)


def main() -> None:
    """Measure, and print a table."""
    print(f"{'':12} {'search':>8} {'rule':>8} {'specification':>14}")
    for name, values in tensors().items():
        histogram = Histogram()
        histogram.observe(values)
        counts = np.histogram(np.abs(values), 2048)[0]
        fast = milliseconds(lambda counts=counts: search(counts), ROUNDS)
        rule = milliseconds(lambda histogram=histogram: amax_of(histogram), ROUNDS)
        slow = milliseconds(lambda counts=counts: specified(counts), SLOW_ROUNDS)
        print(f"{name:12} {fast:8.2f} {rule:8.2f} {slow:14.0f}")


if __name__ == "__main__":
    main()
