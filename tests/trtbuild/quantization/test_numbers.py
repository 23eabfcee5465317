"""Scales, steps and zero points against float64 NumPy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibrators import Calibration, Histogram
from trtbuild.quantization import quantize_weight, symmetric, unsigned, weight_scales
from trtbuild.quantization.weights import quantize_bias, scales_that_hold

TINY = float(np.finfo(np.float32).tiny)
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True)
WEIGHTS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=FLOATS
)


def shaped(scales, ndim, axis):
    return scales.reshape([-1 if i == axis else 1 for i in range(ndim)])


@settings(max_examples=200)
@given(WEIGHTS, st.integers(0, 3) | st.none())
def test_weights_are_within_half_a_step(weight, axis):
    axis = None if axis is None else axis % weight.ndim
    scales = weight_scales(weight, axis, "w")
    steps = quantize_weight(weight, scales, axis)

    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    amax = np.abs(weight.astype(np.float64)).max(axis=others)
    assert scales.dtype == np.float32
    assert scales.shape == (() if axis is None else (weight.shape[axis],))
    # amax / 127, once rounded to float32; 1 for zeros; never below the smallest normal number
    wanted = np.where(amax > 0, np.maximum(amax / 127, TINY), 1.0)
    np.testing.assert_allclose(scales, wanted, rtol=2.0**-23, atol=0)

    assert steps.dtype == np.int8
    assert steps.min() >= -127
    scale = shaped(scales.astype(np.float64), weight.ndim, axis)
    # Half a step for the rounding, plus the error of a quotient of 127 in float32, which is at most
    # 127 * 2**-23 steps and can change a tie.
    error = np.abs(steps * scale - weight.astype(np.float64))
    assert np.all(error <= (0.5 + 127 * 2.0**-22) * scale)


@settings(max_examples=100)
@given(hnp.arrays(np.float32, (4, 6), elements=st.floats(-100, 100, width=32)))
def test_the_largest_weight_of_every_channel_uses_the_whole_range(weight):
    scales = weight_scales(weight, 0, "w")
    steps = quantize_weight(weight, scales, 0)
    amax = np.abs(weight).max(axis=1)
    normal = amax > 127 * TINY  # for smaller weights the scale has a lower limit
    assert np.all(np.abs(steps.astype(int)).max(axis=1)[normal] == 127)
    assert np.all(steps[amax == 0] == 0)


def test_ties_go_to_even():
    weight = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]], np.float32)
    steps = quantize_weight(weight, weight_scales(weight, 0, "w"), 0)
    assert steps.tolist() == [[127, 0, 2, 2, 0, -2, -2]]


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_weight_of_several_blocks_is_rounded_as_a_whole(axis):
    weight = np.random.default_rng(0).normal(size=(301, 1000)).astype(np.float32)
    scales = weight_scales(weight, axis, "w")
    steps = quantize_weight(weight, scales, axis)
    scale = scales if axis is None else shaped(scales, weight.ndim, axis)
    assert np.array_equal(steps, np.rint(weight / scale).astype(np.int8))


@settings(max_examples=200)
@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_symmetric_activations(amax):
    params = symmetric(amax)
    assert params.zero_point == 0
    assert params.dtype == ir.DataType.INT8
    assert params.scale == np.float32(amax) / np.float32(127)


def range_of(values, amax):
    histogram = Histogram()
    histogram.observe(np.asarray(values, np.float32))
    found = Calibration.from_histograms({"t": histogram}, "minmax").ranges["t"]
    return found if amax is None else type(found)(**{**vars(found), "amax": amax})


@settings(max_examples=300)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20).filter(any),
    st.floats(0.01, 1) | st.none(),
)
def test_unsigned_activations(values, share):
    largest = float(np.max(np.abs(np.asarray(values, np.float32))))
    given_range = range_of(values, None if share is None else float(np.float32(largest * share)))
    params = unsigned(given_range)
    scale, zero = float(params.scale), params.zero_point
    assert params.dtype == ir.DataType.UINT8
    assert 0 < scale < np.inf
    assert 0 <= zero <= 255
    assert isinstance(zero, int)
    if given_range.minimum >= 0:
        assert zero == 0  # replaces a ReLU, and zero is exact in any case
    # Every value inside [-amax, amax] comes back to within one step: half of it is rounding, half is
    # the zero point's own rounding at the ends. 2**-20 of the range covers float32 scales.
    inside = np.clip(np.asarray(values, np.float64), -given_range.amax, given_range.amax)
    steps = np.clip(np.rint(inside / scale) + zero, 0, 255)
    error = np.abs((steps - zero) * scale - inside)
    assert np.all(error <= scale * (1 + 2.0**-12))


@settings(max_examples=200)
@given(
    hnp.arrays(np.float32, 5, elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(2.0**-20, 1e3, width=32),
    hnp.arrays(np.float32, 5, elements=st.floats(2.0**-20, 1e3, width=32)),
)
def test_integer_biases(bias, data_scale, scales_of_weight):
    scales, steps = quantize_bias(bias, np.float32(data_scale), scales_of_weight)
    assert scales.dtype == np.float32
    assert steps.dtype == np.int32
    products = np.float64(data_scale) * scales_of_weight.astype(np.float64)
    np.testing.assert_allclose(scales, np.maximum(products, TINY), rtol=2.0**-23)
    exact = bias.astype(np.float64) / scales
    inside = np.abs(exact) < 2**31 - 1
    assert np.all(np.abs(steps - exact)[inside] <= 0.5)
    assert np.all(
        np.abs(steps[~inside].astype(np.float64)) >= 2**31 - 1
    )  # clipped, not wrapped around
    assert np.all(np.sign(steps[~inside]) == np.sign(bias[~inside]))


@pytest.mark.parametrize("of_each", [True, False], ids=["per channel", "per tensor"])
@settings(max_examples=100)
@given(
    bias=hnp.arrays(np.float32, 4, elements=st.floats(-1e6, 1e6, width=32) | st.just(0.0)),
    data_scale=st.floats(2.0**-40, 8.0, width=32),
    scales=hnp.arrays(np.float32, 4, elements=st.floats(2.0**-30, 1.0, width=32)),
    are_zero=hnp.arrays(np.bool_, 4),
)
def test_scales_of_weights_rise_no_further_than_their_bias_needs(
    of_each, bias, data_scale, scales, are_zero
):
    if not of_each:
        scales, are_zero = scales[0], are_zero[0]
    found = scales_that_hold(bias, np.float32(data_scale), np.asarray(scales), np.asarray(are_zero))
    least = np.abs(bias.astype(np.float64)) / (float(data_scale) * 2.0**30)
    needed = np.maximum(least if of_each else least.max(), TINY)
    has_bias = bias != 0 if of_each else True
    wanted = np.where(are_zero & has_bias, needed, np.maximum(scales, needed))
    np.testing.assert_allclose(found, wanted, rtol=2.0**-23)
    assert found.dtype == np.float32
    assert np.all(
        np.abs(bias.astype(np.float64)) / (float(data_scale) * found.astype(float))
        <= 2.0**30 * 1.001
    )
