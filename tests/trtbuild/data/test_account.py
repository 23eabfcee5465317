"""The report on the data after reading: used and skipped items, ranges, and inputs that look wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from trtbuild.data import DataRecipe, Preprocess, account_for, calibration_source, open_data
from trtbuild.model.signature import TensorSpec

SPEC = TensorSpec("x", np.dtype(np.float32), ("N", 3, 8, 8))
PIXELS = np.random.default_rng(5).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def warnings(tmp_path, caplog, values, preprocess):
    np.save(tmp_path / "d.npy", values)
    recipe = DataRecipe(str(tmp_path / "d.npy"), preprocess)
    plan = open_data(recipe, [SPEC])
    account = account_for(recipe, calibrate=plan.calibration, verify=plan.verification)
    assert [record.getMessage() for record in caplog.records] == list(account.warnings)
    return account.warnings


@pytest.mark.parametrize(
    ("values", "preprocess", "match"),
    [
        (PIXELS, Preprocess(scale=1 / 255), None),
        (PIXELS, Preprocess(), None),
        (PIXELS, Preprocess(scale=1 / 255, mean=(0.485,), std=(0.229,)), None),
        (PIXELS, Preprocess(scale=1 / 255**2), "hardly varies"),
        (PIXELS, Preprocess(scale=1 / 255, std=(58,)), "hardly varies"),
        (PIXELS / 255.0, Preprocess(scale=1 / 255, mean=(0.4, 0.5, 0.6)), "hardly varies"),
        (PIXELS, Preprocess(mean=(0.485,), std=(0.229,)), "Is 'scale' missing"),
        (PIXELS.astype(np.uint16) * 257, Preprocess(), "Is 'scale' missing"),
        (np.where(np.arange(192) % 96, 255, PIXELS.reshape(20, 192)), Preprocess(), "saturated"),
        (np.where(np.arange(192) % 32, 255, PIXELS.reshape(20, 192)), Preprocess(), None),
        (PIXELS.transpose(0, 3, 1, 2).astype(np.float32) * 1e-6, None, None),
        (np.arange(20)[:, None, None, None] * np.ones((1, 3, 8, 8)), None, None),
        (np.full((20, 3, 8, 8), 3) + PIXELS.transpose(0, 3, 1, 2) * 1e-6, None, "hardly varies"),
    ],
)
def test_inputs_that_look_wrong(tmp_path, caplog, values, preprocess, match):
    if preprocess is not None:
        values = values.reshape(20, 8, 8, 3)
    found = warnings(tmp_path, caplog, values, preprocess)
    assert [match in sentence for sentence in found] == ([] if match is None else [True])


def test_images_of_several_sizes_and_random_data(caplog):
    sizes = TensorSpec("x", np.dtype(np.float32), ("N", 3, 8, 8))
    recipe = DataRecipe(random_data=True)
    plan = open_data(recipe, [sizes])
    account = account_for(recipe, verify=plan.verification, calibrate=None)
    assert set(account.used) == {"verify"}
    ids = TensorSpec("ids", np.dtype(np.int64), ("N", 8))  # its random data are always zeros
    account_for(recipe, calibrate=calibration_source(recipe, [ids]))
    assert not caplog.records


def test_what_was_passed_over_and_used(tmp_path, caplog):
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels[: 8 - number % 2]).save(tmp_path / f"{number}.png")
    beside = ("labels.csv", "labels.json", "labels.jsonl", "val.txt", "val.lst")
    for name in ("a.heic", "._0.png", *beside):
        (tmp_path / name).write_bytes(b"")
    recipe = DataRecipe(str(tmp_path), Preprocess(scale=1 / 255))
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 3, None, 8))
    plan = open_data(recipe, [spec])
    account = account_for(recipe, calibrate=plan.calibration, verify=plan.verification)
    assert account.used == {"calibrate": 19, "verify": 1}
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.endswith("1 x the suffix .heic is not read ('a.heic')")
    text = str(account)
    assert text.startswith(
        "19 samples calibrate, 1 sample verifies; 'x' from 0 to 1; passed over: "
    )
    assert all(name in text for name in ("._0.png", "a.heic", *beside))
    assert json.loads(json.dumps(account.details))["passed_over"][0] == {
        "reason": "hidden",
        "count": 1,
        "examples": ["._0.png"],
    }


IDS = TensorSpec("input_ids", np.dtype(np.int64), ("batch", 4))
TOKENS = np.arange(80).reshape(20, 4)
TOKENIZED = {
    "input_ids": TOKENS,
    "position_ids": TOKENS[::-1],
    "token_type_ids": np.zeros_like(TOKENS),
}


def file_of_arrays(folder):
    np.savez(folder / "d.npz", **TOKENIZED, y=np.arange(20), words=np.array(["a"] * 20))
    return str(folder / "d.npz")


def folder_of_files(folder):
    for row in range(20):
        one = {name: array[row : row + 1] for name, array in TOKENIZED.items()}
        np.savez(folder / f"{row}.npz", **one)
    return str(folder)


def loader(folder):
    return [{**TOKENIZED, "label": np.arange(20), "words": ["a"] * 20}]


def read_once(folder):
    return iter(loader(folder))


@pytest.mark.parametrize("data", [file_of_arrays, folder_of_files, loader, read_once])
def test_arrays_that_no_input_takes_are_named_once(tmp_path, caplog, data):
    recipe = DataRecipe(data(tmp_path))
    plan = open_data(recipe, [IDS])
    account = account_for(recipe, calibrate=plan.calibration, verify=plan.verification)
    (found,) = account.details["passed_over"]
    assert found["examples"] == ["position_ids", "token_type_ids"]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "2 x an array that no input takes ('position_ids', 'token_type_ids')" in warning


def other_name(folder):
    np.savez(folder / "d.npz", picture=PIXELS, kinds=np.arange(20))
    return str(folder / "d.npz"), Preprocess(scale=1 / 255)


def named_array(folder):
    return [{"picture": PIXELS, "label": np.arange(20)}], Preprocess(scale=1 / 255, array="picture")


def one_key_beside_the_label(folder):
    return [{"picture": PIXELS, "label": np.arange(20)}], Preprocess(scale=1 / 255)


@pytest.mark.parametrize("data", [other_name, named_array, one_key_beside_the_label])
def test_images_under_another_name_and_labels_are_taken(tmp_path, caplog, data):
    recipe = DataRecipe(*data(tmp_path))
    plan = open_data(recipe, [SPEC])
    account = account_for(recipe, calibrate=plan.calibration, verify=plan.verification)
    assert not account.passed_over
    assert not caplog.records


def test_one_array_that_is_filled_anew_is_noticed(caplog):
    one, items = np.empty((1, 3, 8, 8), np.float32), []
    for number in range(20):
        one[:] = PIXELS[number].transpose(2, 0, 1)
        items.append({"x": one})
    recipe = DataRecipe(items)
    account = account_for(recipe, calibrate=calibration_source(recipe, [SPEC]))
    (warning,) = account.repeated
    assert "distinct samples among the 20 that calibrate: 1." in warning
    assert warning in caplog.text


@pytest.mark.parametrize(("distinct", "told"), [(10, 1), (11, 0)])
def test_samples_of_which_half_are_repeated_are_noticed(distinct, told):
    """Fewer repetitions are normal: data sets have a few duplicates."""
    items = [{"x": PIXELS[:1, :, :, :].transpose(0, 3, 1, 2) * np.float32(1 + number % distinct)}
             for number in range(20)]  # fmt: skip
    recipe = DataRecipe(items)
    account = account_for(recipe, calibrate=calibration_source(recipe, [SPEC]))
    assert len(account.repeated) == told


def test_images_behind_the_first_of_a_file_are_told(tmp_path, caplog):
    pictures = [Image.fromarray(pixels) for pixels in PIXELS]
    for name, more in (("a.tif", 2), ("b.webp", 3), ("c.png", 1), ("d.tif", 0), ("e.jpg", 0)):
        pictures[0].save(tmp_path / name, save_all=more > 0, append_images=pictures[1 : 1 + more])
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 3, 8, 8))
    recipe = DataRecipe(str(tmp_path), Preprocess())
    account = account_for(recipe, calibrate=calibration_source(recipe, [spec]))
    assert account.used == {"calibrate": 5}
    (found,) = account.passed_over
    assert found.reason == "more than one image in the file, of which the first is used"
    assert (found.count, found.examples) == (3, ("a.tif", "b.webp", "c.png"))
    assert account.details["passed_over"][0]["count"] == 3
    assert [str(found) in record.getMessage() for record in caplog.records] == [True]


def test_pixels_of_unlike_depth_are_told(tmp_path):
    """One image of 16 bits among images of 8 bits has values 257 times theirs, at any position."""
    for number in range(10):
        Image.fromarray(PIXELS[0]).save(tmp_path / f"{number}.png")
    spec = TensorSpec("x", np.dtype(np.float32), ("N", 3, 8, 8))
    recipe = DataRecipe(str(tmp_path), Preprocess(scale=1 / 255))
    assert account_for(recipe, calibrate=calibration_source(recipe, [spec])).warnings == ()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "z.png")
    (told,) = account_for(recipe, calibrate=calibration_source(recipe, [spec])).warnings
    assert "differ in bit depth, 8 bits ('0.png'), 16 bits ('z.png')" in told
