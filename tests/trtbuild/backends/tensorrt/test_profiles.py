"""Optimization profiles from text; needs nothing of TensorRT."""

from __future__ import annotations

import numpy as np
import pytest

from trtbuild.backends.tensorrt.profiles import parse_shapes, profiles_for
from trtbuild.errors import OptionError
from trtbuild.model.signature import TensorSpec
from trtbuild.runtime.tensorrt.engine import ShapeRange

FLOAT = np.dtype(np.float32)
IMAGES = TensorSpec("images", FLOAT, ("N", 3, None, 8))
MASK = TensorSpec("mask", FLOAT, (4,))


def test_three_shapes_or_one() -> None:
    assert parse_shapes(["x=1x3:2x3:8x3", "y=4"]) == [
        {"x": ShapeRange((1, 3), (2, 3), (8, 3)), "y": ShapeRange((4,), (4,), (4,))}
    ]


def test_names_with_equal_signs_colons_and_scalars() -> None:
    assert parse_shapes(["a=b:0=2"]) == [{"a=b:0": ShapeRange((2,), (2,), (2,))}]
    assert parse_shapes(["s=scalar"]) == [{"s": ShapeRange((), (), ())}]


def test_repeated_inputs_make_profiles() -> None:
    profiles = parse_shapes(["x=1", "y=1", "x=2", "x=3"])
    assert [sorted(profile) for profile in profiles] == [["x", "y"], ["x"], ["x"]]
    assert [profile["x"].opt for profile in profiles] == [(1,), (2,), (3,)]


@pytest.mark.parametrize("text", ["x", "x=", "x=1:2", "x=1xa", "x=1:2:3:4", "=1", "x=-1", "x=1 x2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        parse_shapes([text])


@pytest.mark.parametrize("text", ["x=2:1:3", "x=1:3:2", "x=1:2x2:3", "x=1x5:2x4:3x5"])
def test_min_opt_max_must_be_in_order(text: str) -> None:
    with pytest.raises(OptionError, match="min <= opt <= max"):
        parse_shapes([text])


def test_every_profile_has_every_input() -> None:
    other = TensorSpec("other", FLOAT, ("M",))
    profiles = profiles_for(
        ["images=1x3x8x8", "other=1", "images=2x3x8x8:4x3x16x8:8x3x16x8"], [IMAGES, other, MASK]
    )
    assert [sorted(profile) for profile in profiles] == [["images", "other"]] * 2
    assert profiles[1]["other"].max == (1,)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["imgs=1x3x8x8"], "the network's inputs are images, mask"),
        (["images=1x4x8x8"], "min is 1x4x8x8, but in the network it is Nx3x"),
        (["images=1x3x8"], "min is 1x3x8"),
        (["mask=5"], "min is 5, but in the network it is 4"),
        ([], "--shape 'images=1x3x224x8:8x3x224x8:32x3x224x8'"),
        (["mask=4"], "the input 'images' has the dynamic shape"),
    ],
)
def test_shapes_must_fit_the_network(texts: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        profiles_for(texts, [IMAGES, MASK])
    assert message in str(caught.value)


def test_all_inputs_without_shapes_are_named_at_once() -> None:
    other = TensorSpec("other", FLOAT, ("N",))
    with pytest.raises(OptionError) as caught:
        profiles_for([], [IMAGES, other, MASK])
    assert "the input 'other' has the dynamic shape N." in str(caught.value)
    assert "--shape 'images=1x3x224x8:8x3x224x8:32x3x224x8' --shape 'other=1:8:32'." in str(
        caught.value
    )


BOTH = (TensorSpec("a", FLOAT, ("N", 8)), TensorSpec("b", FLOAT, ("N", 8)))


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a=1x8", "b=4x8"], "'N' is 1:1:1 in the input 'a' and 4:4:4 in 'b'"),
        (["a=1x8:2x8:8x8", "b=1x8:4x8:8x8"], "'N' is 1:2:8 in the input 'a' and 1:4:8 in 'b'"),
        (
            ["a=2x8", "b=2x8", "a=4x8"],
            r"'N' is 4:4:4 in the input 'a' and 2:2:2 in 'b' \(profile 1\)",
        ),
    ],
)
def test_one_dimension_has_one_extent(texts: list[str], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        profiles_for(texts, BOTH)


def test_within_one_input_too() -> None:
    square = TensorSpec("x", FLOAT, ("S", "S"))
    with pytest.raises(OptionError, match="they are the same dimension"):
        profiles_for(["x=4x5"], [square])
    assert profiles_for(["x=4x4"], [square])


def test_ranges_that_share_extents_are_no_contradiction() -> None:
    assert len(profiles_for(["a=1x8:4x8:8x8", "b=2x8:4x8:16x8"], BOTH)) == 1


def test_a_static_network_needs_no_profile() -> None:
    assert profiles_for([], [MASK]) == []
