"""Data from Python objects: lists, loaders, data sets of single samples, functions; and refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader
from PIL import Image

import trtbuild
from tests.trtbuild.verification.small_network import images, quantized
from trtbuild.data import DataRecipe, Preprocess, callables, open_named, open_source
from trtbuild.data.callables import open_object
from trtbuild.errors import DataError
from trtbuild.jobs.engine import build_engine
from trtbuild.jobs.rebuild import rebuild
from trtbuild.model import write_model
from trtbuild.model.signature import TensorSpec

FLOATS = TensorSpec("x", np.dtype(np.float32), ("N", 3, 4))
NUMBERS = np.random.default_rng(3).standard_normal((6, 3, 4)).astype(np.float32)


class DataSet:
    """Single samples with labels, like map-style data sets."""

    def __len__(self) -> int:
        return len(NUMBERS)

    def __getitem__(self, number: int):
        if number >= len(self):
            raise IndexError(number)
        return NUMBERS[number], number % 2


class Reader:
    """The interface of ONNX Runtime's calibration readers."""

    def __init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        self._left = iter([{"x": NUMBERS[:4]}, {"x": NUMBERS[4:]}])

    def get_next(self):
        return next(self._left, None)


class ReadOnce(CalibrationDataReader):
    """A reader as in ONNX Runtime's documentation: it cannot start again, and is also an iterator."""

    def __init__(self) -> None:
        self._left = iter([{"x": NUMBERS[:4]}, {"x": NUMBERS[4:]}])

    def get_next(self):
        return next(self._left, None)


class Columns:
    """Rows of named columns with lists of numbers, read by index and by iteration."""

    def __len__(self) -> int:
        return len(NUMBERS)

    def __getitem__(self, number):
        return {"x": NUMBERS[number].tolist(), "text": "a", "label": 1}

    def __iter__(self):
        return (self[number] for number in range(len(self)))


GIVEN = {
    "a list of batches": [{"x": NUMBERS[:4]}, {"x": NUMBERS[4:]}],
    "a list of arrays": [NUMBERS[:5], NUMBERS[5:]],
    "a list of single samples": list(NUMBERS),
    "a data set": DataSet(),
    "a data set of dicts": [{"x": row.tolist(), "other": "text"} for row in NUMBERS],
    "a function": lambda: iter([NUMBERS]),
    "a reader": Reader(),
    "a reader of ONNX Runtime's kind that starts once": ReadOnce(),
    "a generator that runs": ({"x": part} for part in (NUMBERS[:4], NUMBERS[4:])),
    "all samples and their classes": (NUMBERS, np.arange(6)),
    "a data set as of Hugging Face": Columns(),
    "one array": NUMBERS,
    "one dict": {"x": NUMBERS},
}


@pytest.mark.parametrize("name", GIVEN)
def test_whatever_gives_batches_or_samples_is_read_as_often_as_needed(name) -> None:
    source = open_object(GIVEN[name], [FLOATS], None)
    for _ in range(2):
        found = np.concatenate([sample.load()["x"] for sample in source])
        np.testing.assert_array_equal(found, NUMBERS)


def test_labels_of_single_samples_stay_with_them() -> None:
    assert [s.label for s in open_object(DataSet(), [FLOATS], None)] == [0, 1] * 3


def test_the_axis_of_samples_need_not_be_the_first() -> None:
    spec = TensorSpec("x", np.dtype(np.float32), (3, "N", 4), 1)
    source = open_object(list(NUMBERS), [spec], None)
    found = [sample.load()["x"] for sample in source]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), NUMBERS.transpose(1, 0, 2))


def test_a_generator_that_has_run_is_refused() -> None:
    spent = iter([NUMBERS])
    list(spent)
    with pytest.raises(DataError, match="can be read only once, and it was"):
        open_object(spent, [FLOATS], None)


def test_an_endless_generator_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("trtbuild.data.callables.MOST_HELD_BYTES", 2 * NUMBERS.nbytes)
    with pytest.raises(DataError, match="give the function that makes it"):
        open_object(itertools.repeat(NUMBERS), [FLOATS], None)


def test_numbers_are_no_data() -> None:
    with pytest.raises(DataError, match="neither a path nor a function"):
        open_object(5, [FLOATS], None)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_images_of_pillow_go_through_the_preprocessing_as_files_do(mode, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3)).astype(np.uint8)
    pictures = [Image.fromarray(one).convert(mode) for one in pixels]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    spec = TensorSpec("input", np.dtype(np.float32), ("N", 3, 4, 4))
    preprocess = Preprocess(resize=(4, 4), letterbox=True, mean=(1.0, 2.0, 3.0))
    wanted = [sample.load()["input"] for sample in open_source(str(tmp_path), [spec], preprocess)]
    named = [{"image": picture, "label": 1, "id": 7} for picture in pictures]
    alone = [{"pixels": picture, "label": 1} for picture in pictures]
    for items, key in ((named, "image"), (alone, None), (pictures, None)):
        source = open_object(items, [spec], replace(preprocess, array=key))
        np.testing.assert_array_equal([sample.load()["input"] for sample in source], wanted)


GREY = np.random.default_rng(1).integers(0, 256, (5, 8, 8)).astype(np.uint8)


@pytest.mark.parametrize(
    "items",
    [[*GREY], [*GREY[..., None]], [GREY[:2], GREY[2:]], GREY, GREY[..., None], {"input": GREY}],
    ids=["images", "images with a channel", "batches", "one array", "with a channel", "a dict"],
)
def test_grey_images_are_told_from_batches_of_rows(items) -> None:
    spec = TensorSpec("input", np.dtype(np.float32), ("N", 1, 8, 8))
    found = open_object(items, [spec], Preprocess(color="GRAY", scale=0.5))
    rows = np.concatenate([sample.load()["input"] for sample in found])
    np.testing.assert_array_equal(rows, GREY[:, None] * np.float32(0.5))


def test_a_path_may_be_a_path(tmp_path) -> None:
    np.savez(tmp_path / "x.npz", x=NUMBERS)
    recipe = DataRecipe(data=tmp_path / "x.npz")
    assert len(list(open_named(recipe.data, recipe, [FLOATS]))) == len(NUMBERS)


def test_a_build_from_an_object_equals_one_from_a_file_and_says_so(tmp_path) -> None:
    data = images(3, 24)
    write_model(quantized().source, tmp_path / "n.onnx")
    np.savez(tmp_path / "d.npz", image=data)

    def built(given, name):
        recipe = trtbuild.EngineRecipe(
            model=tmp_path / "n.onnx",
            output=tmp_path / name,
            data=trtbuild.DataRecipe(data=given),
            latency=None,
        )
        return build_engine(recipe)

    result = built([data[:10], data[10:]], "a")
    same = built(tmp_path / "d.npz", "b")
    written = [Path(r.manifest.parent / "n.int8.onnx").read_bytes() for r in (result, same)]
    assert written[0] == written[1]
    recorded = trtbuild.read_manifest(result.manifest).recipe["data"]["data"]
    assert recorded == "python object: list"
    with pytest.raises(DataError, match="python object: list in memory, which no file records"):
        rebuild(result.manifest, tmp_path / "c")
    again = rebuild(result.manifest, tmp_path / "c", data=str(tmp_path / "d.npz"))
    assert again.manifest.is_file()


class Panic(BaseException):
    """Like the exceptions of libraries written in Rust."""


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("says nothing")


@pytest.mark.parametrize(
    "error", [Panic("at line 3"), SystemExit(0), MuteError(), AssertionError()]
)
def test_whatever_a_function_raises_is_one_sentence(error: BaseException) -> None:
    def fails():
        yield {"x": NUMBERS}
        raise error

    with pytest.raises(DataError, match=f"failed: {type(error).__name__}"):
        list(open_object(fails, [FLOATS], None))


def test_a_wish_to_stop_passes_through_a_function() -> None:
    def stopped():
        yield {"x": NUMBERS}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(open_object(stopped, [FLOATS], None))


def test_masked_values_are_no_data():
    masked = np.ma.masked_less(np.arange(12, dtype=np.float32).reshape(3, 4), 2)
    source = open_object([{"x": masked}], [TensorSpec("x", np.dtype(np.float32), ("N", 4))], None)
    with pytest.raises(DataError, match=r"item 0, gave masked values for the input 'x'"):
        list(source)
    source.function[0]["x"] = np.ma.masked_less(masked.data, -1)
    assert len(list(source)) == 3


def test_a_source_that_may_have_no_end_is_told(monkeypatch, caplog):
    monkeypatch.setattr(callables, "_MANY", 5)
    rows = [{"x": np.full((1, 4), number, np.float32)} for number in range(5)]
    for count, told in ((5, 0), (7, 1)):
        source = open_object(
            [*rows, *rows][:count], [TensorSpec("x", np.dtype(np.float32), ("N", 4))], None
        )
        assert len(list(source)) == count
        assert len([r for r in caplog.records if "and continues" in r.getMessage()]) == told
