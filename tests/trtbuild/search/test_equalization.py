"""Equalizing keeps the function, makes channels alike, and says what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trtbuild.search.depthwise_network import images, network
from tests.trtbuild.verification.small_network import float_network, run
from trtbuild.model.edits import tapped
from trtbuild.search.channel_ranges import channel_ranges
from trtbuild.search.equalization import equalize, find_pairs


def ranges(model, seed: int = 0) -> dict[str, np.ndarray]:
    measured = {pair.measured for pair in find_pairs(model)[0]}
    return channel_ranges(model, measured, [{"image": images(seed)}])


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_function_stays_the_same_also_on_other_images(strength: float) -> None:
    model = network(imbalance=1.5)
    equal, changed = equalize(model, ranges(model), strength)
    assert len(changed) == 5
    expected, found = (run(m, images(9))["logits"] for m in (model, equal))
    # six layers of float32 sums of at most 72 terms: relative rounding below 6 * 72 * 2^-24 = 3e-5
    np.testing.assert_allclose(found, expected, atol=3e-5 * np.abs(expected).max())


def test_full_strength_makes_the_channels_of_every_activation_alike() -> None:
    model = network(imbalance=1.5)
    equal, _ = equalize(model, ranges(model))
    before, after = ranges(model), ranges(equal)
    for pair in find_pairs(model)[0]:
        largest, channels = before[pair.measured].max(), after[pair.measured]
        alive = before[pair.measured] > 1e-3 * largest
        np.testing.assert_allclose(channels[alive], largest, rtol=1e-4)
    assert before["r0"].max() / before["r0"].min() > 20


def test_a_channel_below_a_clip_is_scaled_up_to_its_limit_and_the_function_stays() -> None:
    model = network(imbalance=1.5, clipped=True)
    pair = next(pair for pair in find_pairs(model)[0] if pair.first == "s0")
    assert (pair.measured, pair.limit) == ("r0", 6.0)
    equal, _ = equalize(model, ranges(model))
    expected, found = (run(m, images(0))["logits"] for m in (model, equal))
    np.testing.assert_allclose(found, expected, atol=3e-5 * np.abs(expected).max())
    clipped = run(tapped(equal, ["r0"]), images(0))["r0"].max(axis=(0, 2, 3))
    np.testing.assert_allclose(clipped, 6.0, rtol=1e-5)  # float32 rounding of factor and sum
    original = run(tapped(model, ["r0"]), images(0))["r0"].max(axis=(0, 2, 3))
    assert original.min() < 1.0


def test_the_given_network_is_not_touched() -> None:
    model = network(imbalance=1.0)
    before = run(model, images(0))["logits"]
    weight = model.graph.initializers["w1"].const_value.numpy().copy()
    equalize(model, ranges(model))
    np.testing.assert_array_equal(model.graph.initializers["w1"].const_value.numpy(), weight)
    np.testing.assert_array_equal(run(model, images(0))["logits"], before)


def test_layers_that_cannot_be_equalized_are_named_with_a_reason() -> None:
    pairs, skipped = find_pairs(float_network())
    reasons = {one.node: one.reason for one in skipped}
    assert "Add" in reasons["Conv_s0"]
    assert "does not commute" in reasons["Conv_a2"]
    assert "Concat" in reasons["Conv_left"]
    assert "output of the network" in reasons["Gemm_logits"]
    assert {pair.first for pair in pairs} == {"Conv_a0", "Conv_last"}
