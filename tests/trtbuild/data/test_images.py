"""Images: values as in the file, skipped files with reasons, and refusals."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from trtbuild.data import Preprocess, batches, open_source
from trtbuild.data.image_files import images_below
from trtbuild.errors import DataError
from trtbuild.model.signature import TensorSpec
from trtbuild.visible import visible

RANDOM = np.random.default_rng(7)
COLOURS = RANDOM.integers(0, 256, (4, 5, 4), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (4, 5, 4)).astype(np.uint16)


def spec(channels=3):
    return TensorSpec("x", np.dtype(np.float32), ("N", channels, "h", "w"))


def opened(path, channels=3, preprocess=None, **how):
    return open_source(str(path), [spec(channels)], preprocess or Preprocess(), **how)


def values(path, channels=3, preprocess=None):
    """The only sample's values, (H, W, C)."""
    (sample,) = opened(path, channels, preprocess)
    return sample.load()["x"][0].transpose(1, 2, 0)


def png(pixels):
    """A PNG file of 16 bits a channel, which Pillow does not write in colour."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(tag, content):
        return (
            struct.pack(">I", len(content))
            + tag
            + content
            + struct.pack(">I", zlib.crc32(tag + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


def folder(tmp_path, **files):
    place = tmp_path / "set"
    place.mkdir(exist_ok=True)
    for name, given in files.items():
        stream = io.BytesIO()
        if isinstance(given, bytes):
            stream.write(given)
        else:
            Image.fromarray(given).save(stream, "TIFF" if name.endswith("tif") else "PNG")
        (place / name.replace("_", ".", 1)).write_bytes(stream.getvalue())
    return place


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_values(tmp_path, channels):
    place = folder(tmp_path, a_png=png(DEEP[:, :, :channels]))
    color = "GRAY" if channels == 1 else "RGB"
    found = values(place, channels, Preprocess(color=color))
    np.testing.assert_array_equal(found, DEEP[:, :, :channels].astype(np.float32))


def test_transparency_goes_where_the_network_takes_none(tmp_path):
    place = folder(tmp_path, a_png=png(DEEP))
    np.testing.assert_array_equal(values(place), DEEP[:, :, :3].astype(np.float32))
    place = folder(tmp_path, a_png=COLOURS)
    np.testing.assert_array_equal(values(place), COLOURS[:, :, :3].astype(np.float32))
    np.testing.assert_array_equal(values(place, 4), COLOURS.astype(np.float32))
    found = values(place, 4, Preprocess(color="BGR", mean=(1, 2, 3, 4)))
    np.testing.assert_array_equal(found, COLOURS[:, :, [2, 1, 0, 3]] - np.float32([1, 2, 3, 4]))


def test_an_image_without_a_fourth_channel_is_refused_by_a_network_of_four(tmp_path):
    place = folder(tmp_path, a_png=COLOURS[:, :, :3])
    with pytest.raises(DataError, match=r"'a\.png' has the shape \[3, 4, 5\]"):
        values(place, 4)


@pytest.mark.parametrize(
    "pixels",
    [
        RANDOM.random((4, 5)).astype(np.float32) * 3 - 1,
        RANDOM.integers(-(2**24), 2**24, (4, 5)).astype(np.int32),
        DEEP[:, :, 0],
    ],
)
def test_floats_and_whole_numbers_of_a_tiff_keep_their_values(tmp_path, pixels):
    place = folder(tmp_path, a_tif=pixels)
    found = values(place, 1, Preprocess(color="GRAY"))[:, :, 0]
    np.testing.assert_array_equal(found, pixels.astype(np.float32))
    np.testing.assert_array_equal(values(place), np.stack([found] * 3, axis=2))


def test_sixteen_bits_that_cannot_be_read_are_refused(tmp_path):
    place = folder(tmp_path, a_png=png(DEEP[:, :, :2]))
    with pytest.raises(DataError, match="16 bits per channel"):
        values(place)


def test_arrays_of_four_and_more_channels(tmp_path):
    for channels in (4, 6):
        pixels = RANDOM.integers(0, 256, (3, 4, 5, channels), dtype=np.uint8)
        np.save(tmp_path / "d.npy", pixels)
        mean = tuple(float(number) for number in range(channels))
        source = opened(tmp_path / "d.npy", channels, Preprocess(mean=mean))
        found = np.concatenate([sample.load()["x"] for sample in source])
        wanted = pixels.astype(np.float32) - np.float32(mean)
        np.testing.assert_array_equal(found, wanted.transpose(0, 3, 1, 2))
    for preprocess in (Preprocess(mean=(1, 2, 3)), Preprocess(color="BGR")):
        with pytest.raises(DataError, match="6 channels"):
            next(iter(opened(tmp_path / "d.npy", 6, preprocess))).load()


def test_layouts_are_recognised(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros((2, 3, 16, 17), np.uint8))
    with pytest.raises(DataError, match="channels first; bring the channels to the end"):
        next(iter(opened(tmp_path / "d.npy"))).load()
    last = TensorSpec("x", np.dtype(np.float32), ("N", 16, 17, 3))
    np.save(tmp_path / "d.npy", np.zeros((2, 16, 17, 3), np.uint8))
    source = open_source(str(tmp_path / "d.npy"), [last], Preprocess())
    with pytest.raises(DataError, match="--layout NHWC"):
        next(iter(source)).load()
    np.save(tmp_path / "d.npy", np.zeros((2, 3, 16, 17), np.float32))
    with pytest.raises(DataError, match=r"channels last: .* transpose"):
        next(iter(open_source(str(tmp_path / "d.npy"), [last], None))).load()
    np.save(tmp_path / "d.npy", np.zeros((2, 16, 17, 3), np.float32))
    first = TensorSpec("x", np.dtype(np.float32), ("N", 3, 16, 17))
    with pytest.raises(DataError, match=r"channels first: .* transpose"):
        next(iter(open_source(str(tmp_path / "d.npy"), [first], None))).load()


def test_folders_behind_links_are_read_once_each(tmp_path):
    place = folder(tmp_path, a_png=COLOURS)
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(COLOURS[:, :, :3]).save(other / "b.png")
    (place / "more").symlink_to(other)
    (place / "more" / "round").symlink_to(place)
    (place / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = opened(place)
    assert [sample.name for sample in source] == ["a.png", "more/b.png"]
    assert [str(p) for p in source.skipped] == ["1 x a link to nothing ('gone.png')"]


def test_what_is_passed_over_is_counted_and_named(tmp_path):
    place = folder(tmp_path, a_png=COLOURS)
    for name in ("._a.png", ".DS_Store", "b.HEIC", "c.heic", "notes", "l.csv"):
        (place / name).write_bytes(b"\0\5\x16\7")
    (place / ".trash").mkdir()
    (place / ".trash" / "d.png").write_bytes(b"")
    os.mkfifo(place / "pipe.png")
    source = opened(place)
    assert [sample.name for sample in source] == ["a.png"]
    found = {p.reason: (p.count, p.examples) for p in source.skipped}
    assert found == {
        "hidden": (3, (".DS_Store", "._a.png", ".trash")),
        "the suffix .heic is not read": (2, ("b.HEIC", "c.heic")),
        "the suffix .csv is not read": (1, ("l.csv",)),
        "no suffix": (1, ("notes",)),
        "no regular file": (1, ("pipe.png",)),
    }
    (place / "a.png").unlink()
    with pytest.raises(
        DataError, match=r"no image .* 2 x the suffix \.heic is not read \('b\.HEIC'"
    ):
        list(opened(place))


def test_a_folder_of_other_files_is_not_called_one_of_images(tmp_path):
    (tmp_path / "x0.bin").write_bytes(bytes(12))
    two = [spec(), TensorSpec("mask", np.dtype(np.float32), (None, 4))]
    for inputs, preprocess in ([spec()], None), (two, None), ([spec()], Preprocess()):
        with pytest.raises(
            DataError, match=r"no image and no array .*the suffix \.bin is not read"
        ):
            open_source(str(tmp_path), inputs, preprocess)


def test_tar_files_pass_over_the_same(tmp_path):
    place = folder(tmp_path, a_png=COLOURS)
    for name in ("._a.png", "b.heic"):
        (place / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(place, arcname="set")
    source = opened(tmp_path / "set.tar")
    assert [sample.name for sample in source] == ["set/a.png"]
    assert sorted(p.reason for p in source.skipped) == [
        "hidden",
        "the suffix .heic is not read",
    ]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
def test_a_tar_file_that_was_cut_off_anywhere_is_refused(tmp_path, suffix):
    place = folder(tmp_path, a_png=COLOURS, b_png=COLOURS[::-1].copy())
    path = tmp_path / f"set.{suffix}"
    mode = "w" if suffix == "tar" else f"w:{suffix[4:]}"
    with tarfile.open(path, mode) as archive:
        archive.add(place, arcname="set")
        end = archive.offset
    assert len(list(opened(path))) == 2
    whole = path.read_bytes()
    cuts = (end, end - 512, end - 700) if suffix == "tar" else (len(whole) - 9, len(whole) // 2)
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"tar file|cannot read the data"):
            list(opened(path))


def test_tar_files_put_together_are_refused(tmp_path):
    for name in ("one", "two"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(folder(tmp_path, a_png=COLOURS), arcname=name)
    both = (tmp_path / "one.tar").read_bytes() + (tmp_path / "two.tar").read_bytes()
    (tmp_path / "both.tar").write_bytes(both)
    with pytest.raises(DataError, match="several archives were joined"):
        list(opened(tmp_path / "both.tar"))


def test_one_broken_image_is_named_or_passed_over(tmp_path):
    place = folder(tmp_path, a_png=COLOURS, b_png=COLOURS[::-1].copy())
    whole = (place / "a.png").read_bytes()
    (place / "empty.png").write_bytes(b"")
    (place / "half.png").write_bytes(whole[:60])
    (place / "wrong.png").write_bytes(whole[:40] + b"\xff" * 30 + whole[70:])
    with pytest.raises(DataError, match=r"'empty\.png' .* --skip-broken"):
        [sample.load() for sample in opened(place)]
    source = opened(place, skip_broken=True)
    assert [sample.name for sample in source] == ["a.png", "b.png"]
    (broken,) = source.skipped
    assert (broken.reason, broken.count) == ("broken", 3)
    assert len(source.index) == 2


@pytest.mark.parametrize("between", [" ", "\t", ",", "\t+"])
def test_lists_with_classes_name_the_images_and_label_them(between, tmp_path):
    place = folder(tmp_path, a_png=COLOURS, b_png=COLOURS[::-1].copy())
    (place / "b.png").rename(place / "b 2")  # a name that ends in a number
    path = tmp_path / "images.txt"
    path.write_text(f"set/a.png{between}3\nset/b 2\n", encoding="utf-8")
    assert [sample.name for sample in opened(path)] == ["set/a.png", "set/b 2"]
    path.write_text(f"set/a.png{between}3\nset/b 2{between}1\n", encoding="utf-8")
    assert [sample.name for sample in opened(path)] == ["set/a.png", "set/b 2"]


@pytest.mark.parametrize("between", ["\u2028", "\x85", "\u200d"])
def test_lines_of_a_list_end_at_ends_of_lines(between, tmp_path):
    name = f"a{between}b.png"
    folder(tmp_path, a_png=COLOURS).joinpath("a.png").rename(tmp_path / "set" / name)
    for written in (name, visible(name)):
        (tmp_path / "images.txt").write_text(f"set/{written} 3\r\n", encoding="utf-8", newline="")
        assert [sample.name for sample in opened(tmp_path / "images.txt")] == [
            f"set/{visible(name)}"
        ]


def test_lists_of_images(tmp_path):
    place = folder(tmp_path, a_png=COLOURS, b_png=COLOURS[::-1].copy())
    path = tmp_path / "images.txt"
    path.write_text(f"\ufeff# two\n{place / 'b.png'}\r\n\nset/a.png\n", encoding="utf-8")
    source = opened(path)
    assert [sample.name for sample in source] == [str(place / "b.png"), "set/a.png"]
    np.testing.assert_array_equal(
        next(iter(source)).load()["x"][0], COLOURS[::-1, :, :3].transpose(2, 0, 1)
    )
    for content, match in (
        ("set/a.png\nset/c.png\n", r"line 2 .* 'set/c\.png'"),
        ("", "names no image"),
        ("\0\n", r"line 1 .* '\\x00'"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=match):
            list(opened(path))


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    place = folder(tmp_path, a_png=COLOURS)
    try:
        (place / "a.png").rename(place / os.fsdecode(b"\xff\x1b[31m.png"))
    except OSError:
        pytest.skip("this file system takes no such name")
    (sample,) = opened(place)
    assert sample.name == r"\udcff\x1b[31m.png"
    sample.load()
    (found,) = images_below(place).images
    found.write_bytes(b"")
    with pytest.raises(DataError, match=r"'\\udcff\\x1b"):
        next(iter(opened(place))).load()


def test_an_image_beside_a_small_second_input(tmp_path):
    small = TensorSpec("factor", np.dtype(np.float32), ("N", 2))
    pixels = RANDOM.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    factors = RANDOM.random((3, 2)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=pixels, factor=factors)
    for preprocess in (Preprocess(scale=0.5), Preprocess(scale=0.5, input="x")):
        samples = list(open_source(str(tmp_path / "d.npz"), [small, spec()], preprocess))
        for number, sample in enumerate(samples):
            feeds = sample.load()
            np.testing.assert_array_equal(feeds["factor"], factors[number : number + 1])
            np.testing.assert_array_equal(
                feeds["x"][0], pixels[number].transpose(2, 0, 1) * np.float32(0.5)
            )
    with pytest.raises(DataError, match="none is 'picture'"):
        open_source(str(tmp_path / "d.npz"), [small, spec()], Preprocess(input="picture"))
    two = [spec(), TensorSpec("y", np.dtype(np.float32), ("N", 3, 4, 5))]
    with pytest.raises(DataError, match="--image-input"):
        open_source(str(tmp_path / "d.npz"), two, Preprocess())


def test_batches_hold_images_in_order_however_many_are_decoded_ahead(tmp_path):
    for number in range(23):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / f"{number:02}.png")
    found = list(batches(opened(tmp_path), 4))
    assert [len(batch.names) for batch in found] == [4, 4, 4, 4, 4, 3]
    together = np.concatenate([batch.feeds["x"] for batch in found])
    np.testing.assert_array_equal(together[:, 0, 0, 0], np.arange(23))


def test_an_image_that_is_decoded_ahead_is_refused_in_its_turn(tmp_path):
    for number in range(6):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "04.png").write_bytes((tmp_path / "04.png").read_bytes()[:40])
    found = batches(opened(tmp_path), 2)
    assert next(found).names == ("00.png", "01.png")
    with pytest.raises(DataError, match=r"'04\.png'"):
        next(found)


def test_deep_ppm_keeps_its_values_or_is_refused(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    pixels = DEEP[:, :, :3].astype(">u2")
    (place / "a.ppm").write_bytes(b"P5 15 4 65535\n" + pixels.tobytes())
    found = values(place, 1, Preprocess(color="GRAY"))
    np.testing.assert_array_equal(found[:, :, 0], DEEP[:, :, :3].reshape(4, 15))
    (place / "a.ppm").write_bytes(b"P6 5 4 65535\n" + pixels.tobytes())
    with pytest.raises(DataError, match=r"'a\.ppm'.*PNG, TIFF"):
        values(place)


def test_sixteen_bits_for_three_colours(tmp_path):
    """A BMP file of 5, 6 and 5 bits is read as 8 bits: 31 and 63 become 255."""
    place = tmp_path / "set"
    place.mkdir()
    row = np.array([0xF800, 0x07E0, 0x001F, 0xFFFF], "<u2").tobytes()
    sizes = struct.pack("<IHHI", 14 + 52 + len(row), 0, 0, 66)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 16, 3, len(row), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    (place / "a.bmp").write_bytes(b"BM" + sizes + header + masks + row)
    found = values(place)[0]
    assert found.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_grey_images_with_transparency_or_of_one_bit_are_grey(tmp_path, mode):
    grey = Image.fromarray(COLOURS[:, :, 0] // 128 * 255)
    place = tmp_path / "set"
    place.mkdir()
    grey.convert(mode).save(place / "a.png")
    found = values(place, 1, Preprocess(color="GRAY"))
    np.testing.assert_array_equal(found[:, :, 0], np.asarray(grey))


def test_a_grey_network_and_images_in_colour(tmp_path):
    with pytest.raises(DataError, match="--color GRAY"):
        values(folder(tmp_path, a_png=COLOURS[:, :, :3]), 1)


def test_links_that_lead_to_themselves_are_passed_over(tmp_path):
    place = folder(tmp_path, a_png=COLOURS[:, :, :3])
    for name, target in (("b", "c"), ("c", "b"), ("d.png", "d.png")):
        (place / name).symlink_to(target)
    found = images_below(place)
    assert [path.name for path in found.images] == ["a.png"]
    assert [name for name, _ in found.others] == ["b", "c", "d.png"]


def test_links_of_a_tar_file_that_lead_to_themselves_are_broken(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder(tmp_path, a_png=COLOURS[:, :, :3]) / "a.png", "a.png")
        for name, target in (("b.png", "c.png"), ("c.png", "b.png")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    with pytest.raises(DataError, match=r"'b\.png'.*link to nothing"):
        list(opened(tmp_path / "set.tar"))
    source = opened(tmp_path / "set.tar", skip_broken=True)
    assert [sample.name for sample in source] == ["a.png"]
