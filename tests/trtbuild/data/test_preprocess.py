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
            "std = 1e-45",
            "scale = 1e300",
        ),
        *("mean = 'a'", "resize = 0", "resize = [1, 2, 3]", "crop = 'x'", "sclae = 1", "not toml"),
        *("scale = nan", "mean = [nan, 0, 0]", "color = 3", "resize = -4", "resize = []"),
        *("[mean]\na = 1", "array = 3"),
        "resize = true",
        "resize = 16.5",
        "std = [1.0, -1.0, 1.0]",
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


FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


@pytest.mark.parametrize("interpolation", FILTERS)
def test_interpolations_are_pillows(interpolation):
    found = Preprocess(resize=(9, 31), interpolation=interpolation).apply(PIXELS)[0]
    wanted = Image.fromarray(PIXELS).resize((31, 9), FILTERS[interpolation])
    np.testing.assert_array_equal(found, np.asarray(wanted).transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int32])
def test_deep_pixels_are_resized_as_floats(dtype):
    pixels = PIXELS.astype(dtype) * dtype(200)
    found = Preprocess(resize=(9, 31), interpolation="bicubic").apply(pixels)[0]
    for channel in range(3):
        plane = Image.fromarray(PIXELS[:, :, channel].astype(np.float32) * 200)
        wanted = np.asarray(plane.resize((31, 9), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(found[channel], wanted)


def test_a_fourth_channel_is_resized_like_the_others():
    pixels = np.dstack([PIXELS, PIXELS[:, :, 0]])
    found = Preprocess(resize=(9, 31)).apply(pixels, channels=4)[0]
    np.testing.assert_array_equal(found[3], found[0])
    np.testing.assert_array_equal(found[:3], Preprocess(resize=(9, 31)).apply(PIXELS)[0])


@pytest.mark.parametrize(
    ("resize", "inner", "top", "left"),
    [
        (26, (17, 26), 4, 0),  # 13 * 26/20 = 16.9
        ((13, 25), (13, 20), 0, 2),  # an odd border: the larger half is on the right
        ((30, 20), (13, 20), 8, 0),
        ((5, 5), (3, 5), 1, 0),
        ((26, 60), (26, 40), 0, 10),
    ],
)
@pytest.mark.parametrize("pad", [None, 0, 114, 200.5])
def test_letterbox_by_hand(resize, inner, top, left, pad):
    preprocess = Preprocess(
        resize=resize,
        letterbox=True,
        scale=1 / 255,
        mean=(0.5,),
        std=(0.25,),
        **({} if pad is None else {"pad": pad}),
    )
    size = (resize, resize) if isinstance(resize, int) else resize
    wanted = np.full((*size, 3), 114 if pad is None else pad, np.float64)
    image = Image.fromarray(PIXELS).resize(inner[::-1], Image.Resampling.BILINEAR)
    wanted[top : top + inner[0], left : left + inner[1]] = np.asarray(image)
    found = preprocess.apply(PIXELS)[0].transpose(1, 2, 0)
    # p * scale is below 1, the rest below 2 / 2**-2: a relative error of 2**-24 in each of three operations
    np.testing.assert_allclose(found, (wanted / 255 - 0.5) / 0.25, rtol=0, atol=3 * 2.0**-22)


def test_letterbox_of_a_grey_image_and_in_bgr():
    grey = Preprocess(resize=26, letterbox=True, color="GRAY").apply(PIXELS[:, :, 0])[0, 0]
    np.testing.assert_array_equal(grey[:4], 114)
    found = Preprocess(resize=26, letterbox=True, color="BGR").apply(PIXELS)[0]
    same = Preprocess(resize=26, letterbox=True).apply(PIXELS)[0]
    np.testing.assert_array_equal(found, same[::-1])


@pytest.mark.parametrize(
    "settings",
    [
        {"letterbox": True},
        {"interpolation": "area"},
        {"resize": 4, "letterbox": True, "pad": float("nan")},
        {"color": "GRAY", "mean": (1, 2, 3, 4)},
    ],
)
def test_settings_that_do_not_go_together(settings):
    with pytest.raises(OptionError):
        Preprocess(**settings)


def test_what_newer_versions_added_is_told_only_where_it_is_set():
    known = {"layout", "color", "scale", "mean", "std", "resize", "crop", "array"}
    assert set(Preprocess(resize=4).as_dict()) == known
    assert Preprocess(resize=4, letterbox=True).as_dict()["letterbox"] is True
