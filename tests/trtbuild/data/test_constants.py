"""Inputs with the same values for every sample, beside a folder of images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trtbuild.data import DataRecipe, Preprocess, batches, open_data
from trtbuild.errors import DataError, OptionError
from trtbuild.model.signature import TensorSpec
from trtbuild.options.tables import make, read_table, to_table

IMAGE = TensorSpec("image", np.dtype(np.float32), ("N", 3, 4, 4))
FACTOR = TensorSpec("factor", np.dtype(np.float32), ("N", 2))
SIZE = TensorSpec("size", np.dtype(np.int64), (2,))


def plan_of(tmp_path, constants, inputs):
    for number in range(6):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return open_data(DataRecipe(str(tmp_path), Preprocess(), constants=constants), inputs)


@pytest.mark.parametrize("value", [[1.0, 2.0], 3, [3]])
def test_images_beside_a_constant(tmp_path, value):
    plan = plan_of(tmp_path, {"factor": value}, [IMAGE, FACTOR])
    (batch,) = batches(plan.calibration, 8)
    assert batch.feeds["image"].shape == (5, 3, 4, 4)
    wanted = np.broadcast_to(np.float32(value), (5, 2))
    np.testing.assert_array_equal(batch.feeds["factor"], wanted)
    assert batch.feeds["factor"].dtype == np.float32


def test_a_constant_without_a_batch_axis(tmp_path):
    plan = plan_of(tmp_path, {"size": [4.0, 4.0]}, [IMAGE, SIZE])
    (first, *_) = batches(plan.calibration, 8)
    np.testing.assert_array_equal(first.feeds["size"], np.array([4, 4]))
    assert first.feeds["size"].dtype == np.int64


@pytest.mark.parametrize("value", [2, [2.0]])
def test_one_number_for_a_scalar_input_is_a_scalar_in_every_batch(tmp_path, value):
    scalar = TensorSpec("strength", np.dtype(np.float32), ())
    plan = plan_of(tmp_path, {"strength": value}, [IMAGE, scalar])
    (batch,) = batches(plan.calibration, 8)
    assert batch.feeds["image"].shape == (5, 3, 4, 4)
    assert batch.feeds["strength"].shape == ()
    assert batch.feeds["strength"].item() == 2.0


def test_a_constant_beside_random_data():
    recipe = DataRecipe(random_data=True, constants={"size": [4, 6]})
    (first, *_) = batches(open_data(recipe, [IMAGE, SIZE]).calibration, 8)
    np.testing.assert_array_equal(first.feeds["size"], np.array([4, 6]))
    assert first.feeds["image"].std() > 0.5  # normal numbers


@pytest.mark.parametrize(
    ("constants", "match"),
    [
        ({"other": 1}, "no input 'other'"),
        ({"factor": [1, 2, 3]}, "shape"),
        ({"factor": [[1], [2, 3]]}, "different lengths"),
        ({"factor": 1, "image": 1}, "every input"),
        ({}, "2 inputs"),
    ],
)
def test_constants_that_do_not_fit(tmp_path, constants, match):
    with pytest.raises(DataError, match=match):
        plan_of(tmp_path, constants, [IMAGE, FACTOR])


def test_constants_of_the_command_line_and_of_a_recipe():
    for given in (["factor=1,2"], "factor=1,2", {"factor": [1.0, 2.0]}):
        recipe = make(DataRecipe, read_table(DataRecipe, {"constants": given}, "r"))
        assert recipe.constants == {"factor": [1.0, 2.0]}
        again = make(DataRecipe, read_table(DataRecipe, to_table(recipe), "r"))
        assert again == recipe
        assert "factor" in recipe.preprocess_text
    assert DataRecipe().preprocess_text == "none"
    for wrong in ("factor", "factor=", "factor=a", "=1"):
        with pytest.raises(OptionError, match="INPUT=NUMBERS"):
            read_table(DataRecipe, {"constants": [wrong]}, "r")
