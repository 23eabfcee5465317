"""Preprocessing against Pillow and NumPy, step by step, and the real networks' numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from trtbuild.data import Preprocess, read_preprocess
from trtbuild.errors import DataError, OptionError

PIXELS = np.random.default_rng(1).integers(0, 256, (13, 20, 3), dtype=np.uint8)


def test_the_formula_in_float64():
    mean, std, scale = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255
    found = Preprocess(scale=scale, mean=mean, std=std).apply(PIXELS)
    wanted = (PIXELS.astype(np.float64) * scale - np.array(mean)) / np.array(std)
    assert found.dtype == np.float32
    # three float32 operations, each off by half a unit in the last place of values up to 3
    np.testing.assert_allclose(found[0], wanted.transpose(2, 0, 1), rtol=0, atol=3 * 2.0**-22)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_layout_and_colour(layout, color):
    found = Preprocess(layout=layout, color=color).apply(PIXELS)[0]
    wanted = PIXELS[:, :, ::-1] if color == "BGR" else PIXELS
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1) if layout == "NCHW" else wanted)


def test_mean_is_in_the_order_of_the_network():
    found = Preprocess(color="BGR", mean=(104, 117, 123)).apply(PIXELS)[0]
    np.testing.assert_array_equal(found[0], PIXELS[:, :, 2].astype(np.float32) - 104)


def test_grey_from_colour_and_colour_from_grey():
    grey = Preprocess(color="GRAY").apply(PIXELS)[0, 0]
    pillow = np.asarray(Image.fromarray(PIXELS).convert("L"), np.float32)
    assert np.abs(grey - pillow).max() <= 1  # Pillow rounds to whole grey levels
    for image in (PIXELS[:, :, 0], PIXELS[:, :, :1]):
        assert Preprocess(color="GRAY").apply(image).shape == (1, 1, 13, 20)
        repeated = Preprocess().apply(image)[0]
        np.testing.assert_array_equal(repeated, np.stack([PIXELS[:, :, 0]] * 3))


@pytest.mark.parametrize(
    ("resize", "size"), [(26, (26, 40)), (7, (7, 11)), ((9, 31), (9, 31)), (13, (13, 20))]
)
def test_resize_is_pillows_bilinear(resize, size):
    found = Preprocess(resize=resize).apply(PIXELS)[0]
    wanted = Image.fromarray(PIXELS).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(wanted).transpose(2, 0, 1))


def test_crop_is_from_the_centre_after_resizing():
    found = Preprocess(crop=(5, 8), layout="NHWC").apply(PIXELS)[0]
    np.testing.assert_array_equal(found, PIXELS[4:9, 6:14])
    both = Preprocess(resize=26, crop=24).apply(PIXELS)
    assert both.shape == (1, 3, 24, 24)
    with pytest.raises(DataError, match=r"'cat\.png' has 13x20 pixels"):
        Preprocess(crop=14).apply(PIXELS, "cat.png")


@pytest.mark.parametrize("shape", [(13,), (13, 20, 4), (2, 13, 20, 3), (3, 13, 20)])
def test_what_is_no_image(shape):
    with pytest.raises(DataError, match="has the shape"):
        Preprocess().apply(np.zeros(shape, np.uint8))


def test_toml_and_overrides(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text('color = "BGR"\nscale = 0.5\nmean = 3\nresize = [9, 7]\n')
    found = read_preprocess(path, {"scale": 2.0, "crop": [4], "mean": None})
    assert found == Preprocess(color="BGR", scale=2.0, mean=(3.0,), resize=(9, 7), crop=4)
    assert read_preprocess(None, {"scale": None}) is None
    assert read_preprocess(None, {"scale": 1}) == Preprocess()
    assert read_preprocess(path, {}).as_dict()["resize"] == [9, 7]


@pytest.mark.parametrize(
    "content",
    [
        *(
            "color = 'CMYK'",
            "layout = 'NHW'",
            "scale = 'x'",
            "mean = [1, 2]",
            "std = 0",
            "std = inf",
        ),
        *("mean = 'a'", "resize = 0", "resize = [1, 2, 3]", "crop = 'x'", "sclae = 1", "not toml"),
        *("scale = nan", "mean = [nan, 0, 0]", "color = 3", "resize = -4", "resize = []"),
        *("[mean]\na = 1", "array = 3"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, content):
    path = tmp_path / "p.toml"
    path.write_text(content)
    with pytest.raises(OptionError):
        read_preprocess(path, {})


def test_missing_file(tmp_path):
    with pytest.raises(OptionError, match="absent"):
        read_preprocess(tmp_path / "absent.toml", {})


@pytest.mark.parametrize("name", ["resnet20", "squeezenet11", "ultraface_rfb320", "ppocr_cls"])
def test_the_numbers_of_real_networks(shared, name):
    given = json.loads((shared / "data" / "models.json").read_text())[name]
    settings = {k: given[k] for k in ("layout", "color", "scale", "mean", "std")}
    found = read_preprocess(None, settings).apply(PIXELS)[0]
    pixels = PIXELS if given["color"] == "RGB" else PIXELS[:, :, ::-1]
    wanted = (pixels * float(given["scale"]) - np.array(given["mean"])) / np.array(given["std"])
    # three float32 operations on values up to 255 - 104: half a unit in the last place each
    np.testing.assert_allclose(found, wanted.transpose(2, 0, 1), rtol=0, atol=3 * 2.0**-17)
