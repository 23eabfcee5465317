"""Counts made on a tensor's device are those made from its copy, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibrators import Calibration, Collector, Histogram
from calibrators.errors import ObservationError

torch = pytest.importorskip("torch", reason="needs PyTorch")

from trtbuild.errors import DataError  # noqa: E402
from trtbuild.pytorch.device_histogram import device_histogram  # noqa: E402 - needs PyTorch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SPECIAL = np.array(
    [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -3.4028235e38],
    np.float32,
)  # fmt: skip


def from_copy(tensor: torch.Tensor) -> Histogram:
    histogram = Histogram()
    histogram.observe(tensor.to("cpu", torch.float32).numpy())
    return histogram


# every pattern of 32 bits, so NaN of every kind, both zeros, subnormal values and infinities
patterns = st.one_of(
    arrays(np.uint32, st.integers(0, 200)), arrays(np.uint32, st.integers(1, 40), elements=st.integers(0, 20))
)  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150)
@given(bits=patterns)
def test_any_bits_are_counted_as_from_the_copy(device, bits) -> None:
    values = bits.view(np.float32).copy()
    tensor = torch.from_numpy(values).to(device)
    histogram = Histogram()
    histogram.observe(values)
    assert device_histogram(tensor) == histogram


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_type_and_layout(device, dtype) -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.standard_normal(5000), rng.standard_cauchy(5000) * 1e4])
    values[:3000] = np.maximum(values[:3000], 0)
    values[9000 : 9000 + len(SPECIAL)] = SPECIAL
    tensor = torch.from_numpy(values).to(device, getattr(torch, dtype)).reshape(10, 50, 20)
    expected = from_copy(tensor)
    assert expected.num_nan > 0
    assert expected.num_inf > 0
    for same in (tensor, tensor.permute(2, 0, 1), tensor.clone().requires_grad_()):
        assert device_histogram(same) == expected


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_zeros_and_what_is_not_finite(device) -> None:
    assert device_histogram(torch.empty(0, device=device)) == Histogram()
    zeros = device_histogram(torch.tensor([0.0, -0.0, 0.0], device=device))
    assert (zeros.num_zeros, zeros.num_values, zeros.observed_amax) == (3, 3, 0.0)
    bad = device_histogram(torch.tensor([np.nan, np.inf, -np.inf], device=device))
    assert (bad.num_values, bad.num_nan, bad.num_inf, bad.maximum) == (0, 1, 2, 0.0)
    with pytest.raises(DataError, match="must be float"):
        device_histogram(torch.arange(3, device=device))


@pytest.mark.parametrize("device", DEVICES)
def test_a_collector_adds_them_as_if_it_had_observed(device) -> None:
    rng = np.random.default_rng(3)
    batches = [rng.standard_normal((4, 8)).astype(np.float32) * 3**n for n in range(5)]
    batches[3][0, 0], batches[4][1, 1] = np.nan, -np.inf
    batches[4][2, 2] = np.nan
    observed, added = Collector(["t"]), Collector(["t"])
    for number, batch in enumerate(batches):
        observed.observe({"t": batch}, batch=number)
        added.add("t", device_histogram(torch.from_numpy(batch).to(device)), batch=number)
    assert added.histograms["t"] == observed.histograms["t"]
    assert added.non_finite == observed.non_finite
    files = [
        Calibration.from_histograms(c.histograms).to_bytes(histograms=True)
        for c in (added, observed)
    ]
    assert files[0] == files[1]
    with pytest.raises(ObservationError, match="'other' is not among"):
        added.add("other", Histogram(), batch=0)
