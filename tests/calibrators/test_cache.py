"""TensorRT's calibration cache text: real files, and the errors for bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrators import Calibration, CalibrationCache, Histogram, version_digits
from calibrators.errors import CacheError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "TRT-100300-EntropyCalibration2"
NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], include_characters=" :[]()/"), min_size=1
).filter(lambda name: name == name.strip() != "")
SCALES = st.floats(0, allow_nan=False, allow_infinity=True, width=32).map(
    lambda value: np.float32(abs(value))
)


@given(st.dictionaries(NAMES, SCALES))
def test_what_is_written_is_read(scales: dict[str, np.float32]) -> None:
    cache = CalibrationCache(HEADER, scales)
    assert CalibrationCache.from_bytes(cache.to_bytes()) == cache


def test_real_caches_come_back_byte_for_byte(shared: Path) -> None:
    # entries, zeros, infinities: as recorded with the collected files
    expected = {
        "trt5101-resnet50-caffe.txt": ("5101", "EntropyCalibration2", 229, 0, 0),
        "trt6001-gnmt-minmax.cache": ("6001", "MinMaxCalibration", 53, 0, 3),
        "trt7000-yolov3-deepstream.table": ("7000", "EntropyCalibration2", 258, 0, 0),
        "trt7202-resnet-cifar10.cache": ("7202", "EntropyCalibration2", 86, 0, 0),
        "trt8001-constants.cache": ("8001", "EntropyCalibration2", 108, 0, 0),
        "trt8400-vgg16-minmax.cache": ("8400", "MinMaxCalibration", 67, 0, 0),
        "trt8601-diffusion-zeros.cache": ("8601", "EntropyCalibration2", 848, 80, 7),
        "trt100300-yolo11.cache": ("100300", "EntropyCalibration2", 343, 0, 0),
        "legacy-mnist.table": ("", "Legacy", 8, 0, 0),
    }
    for name, (version, algorithm, entries, zeros, infinities) in expected.items():
        content = (shared / "data" / "caches" / name).read_bytes()
        cache = CalibrationCache.from_bytes(content)
        assert cache.to_bytes() == content.rstrip() + b"\n"
        scales = list(cache.scales.values())
        assert (cache.version, cache.algorithm, len(scales)) == (version, algorithm, entries)
        assert (scales.count(np.float32(0)), sum(map(np.isinf, scales))) == (zeros, infinities)
        assert len(cache.amaxes) == entries - zeros - infinities


def test_words_are_big_endian_float32_without_padding() -> None:
    content = f"{HEADER}\nimages: 3c010a14\ntiny: 1\nzero: 0\n(Unnamed: 1) [x]_output: 7f800000\n"
    cache = CalibrationCache.from_bytes(content.encode())
    assert cache.to_bytes() == content.encode()
    assert cache.scales["images"] == np.float32(2048.5 / 2048) / np.float32(127)
    assert cache.scales["tiny"] == np.float32(2**-149)
    assert cache.scales["(Unnamed: 1) [x]_output"] == np.inf
    assert list(cache.amaxes) == ["images", "tiny"]
    assert cache.amaxes["images"] == pytest.approx(2048.5 / 2048, rel=1e-7)


def test_other_line_ends_empty_lines_and_upper_case_are_read() -> None:
    content = f"{HEADER} \r\n\r\na: 3C010A14\r\n\r\nb: 0\r\n\r\n"
    cache = CalibrationCache.from_bytes(content.encode())
    assert cache.to_bytes() == f"{HEADER}\na: 3c010a14\nb: 0\n".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with ''"),
        (b"input: 3c010a14\n", "it begins with 'input: 3c010a14'"),
        (b"\x80\x04", "byte 0 is not text"),
        (f"{HEADER}\na: 3c010a14\nb 3c010a14".encode(), "line 3: 'b 3c010a14' is not 'name: "),
        (f"{HEADER}\n: 3c010a14".encode(), "line 2: ': 3c010a14' is not"),
        (f"{HEADER}\na: 3c010a145".encode(), "line 2: the scale of 'a' is '3c010a145'"),
        (f"{HEADER}\na: 0.5".encode(), "line 2: the scale of 'a' is '0.5'"),
        (f"{HEADER}\na: bc010a14".encode(), "line 2: the scale of 'a' is -0.0078"),
        (f"{HEADER}\na: 7fc00000".encode(), "line 2: the scale of 'a' is nan"),
        (f"{HEADER}\na: 1\na: 2\n".encode(), "line 3: 'a' occurs twice"),
        (f"{HEADER}\na: 3f800000\nb: 3f80".encode(), "inside line 3"),
        (f"{HEADER}\na: ".encode(), "line 2"),
        (f"{HEADER}\na: \n".encode(), "line 2"),
    ],
)
def test_bad_caches_are_refused_with_the_line(content: bytes, message: str) -> None:
    with pytest.raises(CacheError, match=message.replace("(", r"\(")):
        CalibrationCache.from_bytes(content)


@pytest.mark.parametrize("name", ["", " ", "a\nb", " a"])
def test_names_that_no_line_can_hold(name: str) -> None:
    with pytest.raises(CacheError, match="cannot hold the tensor name"):
        CalibrationCache(HEADER, {name: np.float32(1)}).to_bytes()
    with pytest.raises(CacheError, match="cannot hold -1"):
        CalibrationCache(HEADER, {"a": np.float32(-1)}).to_bytes()


def test_versions_become_the_digits_of_the_header() -> None:
    assert version_digits("10.16.1") == "101601"
    assert version_digits("10.3.0.26") == "100300"
    assert version_digits("8.6.1") == "8601"
    for text in ("10", "10.3", "ten"):
        with pytest.raises(CacheError, match="not a TensorRT version"):
            version_digits(text)


def test_the_header_names_the_calibrator() -> None:
    histogram = Histogram()
    histogram.observe(np.array([2.7537313]))
    minmax = Calibration.from_histograms({"input_0": histogram}, "minmax")
    # the scale that TensorRT 8.4's MinMax calibrator wrote for this input
    expected = b"TRT-8400-MinMaxCalibration\ninput_0: 3cb1a063\n"
    assert CalibrationCache.from_calibration(minmax, "8400").to_bytes() == expected


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEADER}\na: 3f800000\n",
        f"{HEADER}\r\na: 3f800000\r\n\r\n",
        f"{HEADER}\na: 3f800000\na: 3f800000\n",
        f"{HEADER}\na: 3f800000",
    ],
    ids=["byte-order mark", "carriage returns", "an equal line twice", "no last line end"],
)
def test_byte_order_mark_line_ends_and_equal_lines_are_accepted(content):
    cache = CalibrationCache.from_bytes(content.encode())
    assert cache.header == HEADER
    assert dict(cache.scales) == {"a": 1.0}


@pytest.mark.parametrize("count", [1, 2, 40])
def test_words_in_the_other_byte_order_are_told_from_right_ones(count: int) -> None:
    rng = np.random.default_rng(count)
    scales = np.exp(rng.uniform(np.log(1e-6), np.log(1e3), count)).astype(np.float32)

    def cache(kind: str) -> bytes:
        words = [word.tobytes().hex() for word in np.split(scales.astype(kind), count)]
        lines = [f"t{n}: {word}" for n, word in enumerate(words)]
        return "\n".join([HEADER, *lines, "zero: 0", "no_end: 7f800000", ""]).encode()

    right = CalibrationCache.from_bytes(cache(">f4"))
    right.check_scales()
    assert not right.doubtful
    with pytest.raises(CacheError, match=r"bytes of each word swapped.*big-endian"):
        CalibrationCache.from_bytes(cache("<f4")).check_scales()


def test_masks_and_next_to_nothing_are_doubtful_and_not_refused() -> None:
    scales = {"mask": 2.7e36, "dead": 1e-40, "usual": 0.02, "zero": 0.0, "none": np.inf}
    cache = CalibrationCache(HEADER, {name: np.float32(scale) for name, scale in scales.items()})
    cache.check_scales()
    assert cache.doubtful == ("mask", "dead")


def test_only_scales_beyond_the_bounds_are_doubtful() -> None:
    least, most = np.float32(2.0**-40), np.float32(2.0**40)
    scales = {"least": least, "most": most}
    scales |= {
        "less": np.nextafter(least, np.float32(0)),
        "more": np.nextafter(most, np.float32(np.inf)),
    }
    assert CalibrationCache(HEADER, scales).doubtful == ("less", "more")


def test_words_that_are_no_floats_are_refused() -> None:
    numbers = CalibrationCache.from_bytes(f"{HEADER}\na: 64\nb: ff\nzero: 0\n".encode())
    with pytest.raises(
        CacheError, match=r"no scale .* makes sense; the first is 1\.\d+e-43 of 'a'"
    ):
        numbers.check_scales()
