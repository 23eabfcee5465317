"""Histograms of single samples add up to those of one run over all samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrators import Collector
from trtbuild.calibration.kept_histograms import KeptHistograms

TENSORS = ("a", "b")


def sample(seed: int) -> dict[str, np.ndarray]:
    """Two tensors, with a different size and magnitude in each sample, some zeros, or empty."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-3, 4)
    values = rng.standard_normal(int(rng.integers(0, 3000))) * scale
    values[: len(values) // 5] = 0.0
    return {"a": values.astype(np.float32), "b": np.abs(values[::7]).astype(np.float32)}


@settings(max_examples=20)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9, unique=True), st.data())
def test_any_of_the_samples_add_up_to_what_one_run_counts(seeds, data) -> None:
    parts = [KeptHistograms(TENSORS), KeptHistograms(TENSORS)]
    for number, seed in enumerate(seeds):
        alone = Collector(TENSORS)
        alone.observe(sample(seed), batch=number)
        parts[number % 2].keep(str(seed).encode(), alone.histograms)
    chosen = data.draw(st.lists(st.sampled_from(seeds), unique=True))
    together = Collector(TENSORS)
    for number, seed in enumerate(chosen):
        together.observe(sample(seed), batch=number)
    found = KeptHistograms.together(parts, [str(seed).encode() for seed in chosen])
    assert found == dict(together.histograms)
