"""Readers: arrays, folders, tars, callables; the form of a sample, and refusals."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from trtbuild.data import Preprocess, batches, open_source, stored
from trtbuild.data.callables import CallableSource
from trtbuild.data.labels import read_labels
from trtbuild.errors import DataError
from trtbuild.model.signature import TensorSpec

FLOATS = TensorSpec("x", np.dtype(np.float32), ("N", 3, 4, 5))
NUMBERS = np.random.default_rng(3).standard_normal((6, 3, 4, 5)).astype(np.float32)
PIXELS = np.random.default_rng(4).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


def feeds(source, name="x"):
    return [sample.load()[name] for sample in source]


def open_arrays(tmp_path, inputs=(FLOATS,), preprocess=None, **arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    return open_source(str(tmp_path / "d.npz"), list(inputs), preprocess)


def test_npz_by_name_and_by_being_the_only_array(tmp_path):
    for name in ("x", "whatever"):
        source = open_arrays(tmp_path, **{name: NUMBERS})
        np.testing.assert_array_equal(np.concatenate(feeds(source)), NUMBERS)
        assert [s.name for s in source][:2] == ["d.npz[0]", "d.npz[1]"]


def test_labels_beside_the_images_do_not_confuse(tmp_path):
    source = open_arrays(tmp_path, pictures=NUMBERS, y=np.arange(6), classes=np.array(["a", "b"]))
    assert len(feeds(source)) == 6


def test_the_array_that_is_named_is_taken_whatever_the_input_is_called(tmp_path):
    named = Preprocess(array="pictures")
    for arrays in ({}, {"x": np.zeros((6, 4, 5, 3), np.uint8)}):
        source = open_arrays(tmp_path, preprocess=named, pictures=PIXELS, **arrays)
        np.testing.assert_array_equal(feeds(source)[0][0], PIXELS[0].transpose(2, 0, 1))
    with pytest.raises(DataError, match="no array 'pictures'"):
        open_arrays(tmp_path, preprocess=named, x=PIXELS)


def test_npy(tmp_path):
    np.save(tmp_path / "d.npy", NUMBERS)
    source = open_source(str(tmp_path / "d.npy"), [FLOATS], None)
    np.testing.assert_array_equal(np.concatenate(feeds(source)), NUMBERS)


def test_several_inputs_need_arrays_of_one_length(tmp_path):
    ids = TensorSpec("ids", np.dtype(np.int64), (None, 7))
    tokens = np.arange(42).reshape(6, 7)
    source = open_arrays(tmp_path, (FLOATS, ids), x=NUMBERS, ids=tokens)
    sample = next(iter(source)).load()
    assert sample["ids"].shape == (1, 7)
    with pytest.raises(DataError, match="differ in length"):
        open_arrays(tmp_path, (FLOATS, ids), x=NUMBERS, ids=tokens[:5])
    with pytest.raises(DataError, match="no array for the input 'ids'"):
        open_arrays(tmp_path, (FLOATS, ids), x=NUMBERS)


def test_samples_may_bring_their_batch_axis(tmp_path):
    source = open_arrays(tmp_path, x=NUMBERS[:, np.newaxis])
    assert {feed.shape for feed in feeds(source)} == {(1, 3, 4, 5)}
    assert [len(b.names) for b in batches(source, 4)] == [4, 2]


def test_samples_without_a_batch_axis_are_feeds_of_their_own(tmp_path):
    spec = TensorSpec("x", np.dtype(np.float32), (3, 4, 5))
    source = open_arrays(tmp_path, (spec,), x=NUMBERS)
    assert {feed.shape for feed in feeds(source)} == {(3, 4, 5)}
    assert [len(b.names) for b in batches(source, 4)] == [1] * 6


def test_scalars(tmp_path):
    spec = TensorSpec("x", np.dtype(np.float32), ())
    source = open_arrays(tmp_path, (spec,), x=np.arange(3, dtype=np.float32))
    assert [feed.shape for feed in feeds(source)] == [()] * 3


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        (np.array([[1, 2]], np.uint8), np.int64, True),
        (np.array([[1, 0]], np.int64), np.bool_, True),
        (np.array([[1.0, 2.0]], np.float32), np.int32, True),
        (np.array([[1.0, 2.5]], np.float32), np.int32, False),
        (np.array([[1, 2**40]], np.int64), np.int32, False),
        (np.array([[-1, 2]], np.int64), np.uint8, False),
        (np.array([[0.5, 2.5]], np.float64), np.float16, True),
        (np.array([[1, 2]], np.int64), np.float32, False),  # raw integers are no prepared input
    ],
)
def test_dtypes_change_only_where_no_value_does(tmp_path, given, wanted, fits):
    source = open_arrays(tmp_path, (TensorSpec("x", np.dtype(wanted), (None, 2)),), x=given)
    if fits:
        (feed,) = feeds(source)
        assert feed.dtype == wanted
        np.testing.assert_array_equal(feed, given)
    else:
        with pytest.raises(DataError, match="'x'"):
            feeds(source)


def write_images(folder):
    """Six PNG files in two folders, and a file that is no image."""
    for number, pixels in enumerate(PIXELS):
        path = folder / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(path)
    (folder / "notes.txt").write_text("no image")
    return sorted(folder.rglob("*.png"))


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz"])
def test_images(tmp_path, kind):
    files = write_images(tmp_path / "set")
    place = tmp_path / "set"
    if kind != "folder":
        place = tmp_path / f"set.{kind}"
        with tarfile.open(place, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(tmp_path / "set", arcname="set")
    source = open_source(str(place), [FLOATS], Preprocess(scale=0.5))
    names = [file.relative_to(tmp_path / "set").as_posix() for file in files]
    found = {sample.name.removeprefix("set/"): sample.load()["x"] for sample in source}
    assert sorted(found) == sorted(names)
    for name, feed in found.items():
        pixels = PIXELS[int(name[2])]
        np.testing.assert_array_equal(feed[0], pixels.transpose(2, 0, 1).astype(np.float32) / 2)


def test_a_folder_and_its_tar_hold_the_same_samples(tmp_path):
    write_images(tmp_path / "set")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", arcname="elsewhere")
    keys = [
        {sample.key for sample in open_source(str(tmp_path / place), [FLOATS], Preprocess())}
        for place in ("set", "set.tar")
    ]
    assert len(keys[0]) == 6
    assert keys[0] == keys[1]


def test_unreadable_image_is_named(tmp_path):
    write_images(tmp_path / "set")
    (tmp_path / "set" / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    source = open_source(str(tmp_path / "set"), [FLOATS], Preprocess())
    with pytest.raises(DataError, match="a/broken"):
        feeds(source)


def test_truncated_image_and_truncated_tar(tmp_path):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "half.png").write_bytes(stream.getvalue()[:3000])
    with pytest.raises(DataError, match="half"):
        feeds(open_source(str(tmp_path / "set"), [FLOATS], Preprocess()))
    (tmp_path / "set" / "half.png").write_bytes(stream.getvalue())
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set")
    whole = (tmp_path / "set.tar").read_bytes()
    (tmp_path / "set.tar").write_bytes(whole[:5000])
    with pytest.raises(DataError, match="tar file"):
        feeds(open_source(str(tmp_path / "set.tar"), [FLOATS], Preprocess()))


def test_images_need_a_preprocessing_and_one_input(tmp_path):
    write_images(tmp_path / "set")
    with pytest.raises(DataError, match="--preprocess"):
        open_source(str(tmp_path / "set"), [FLOATS], None)
    with pytest.raises(DataError, match="2 inputs"):
        open_source(str(tmp_path / "set"), [FLOATS, FLOATS], Preprocess())


MODULE = """
import numpy as np
def good():
    for start in range(0, 6, 4):
        rows = np.arange(start, min(start + 4, 6), dtype=np.float32)
        yield {"x": rows[:, None, None, None] * np.ones((1, 3, 4, 5), np.float32), "label": rows}
def raises():
    yield {"x": np.zeros((1, 3, 4, 5), np.float32)}
    raise ValueError("the disk is gone")
def no_dict():
    yield [1, 2]
def other_names():
    yield {"z": np.zeros((1, 3, 4, 5), np.float32)}
def scalars():
    yield {"x": 1.0}
def nothing():
    return []
def one_buffer():
    buffer = np.empty((2, 3, 4, 5), np.float32)
    for number in (0, 2, 4):
        buffer[0], buffer[1] = number, number + 1
        yield {"x": buffer}
value = 3
def batch():
    return np.arange(6, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 4, 5), np.float32)
def bare():
    yield batch()[:4]
    yield batch()[4:]
def with_labels():
    yield batch()[:4], [0, 1, 2, 3]
    yield ({"x": batch()[4:]}, np.array([[4], [5]]))
def lists():
    yield batch()[:4].tolist()
    yield [batch()[4:], np.array([4, 5])]
def whole():
    return {"x": batch()}
class Reader:
    def __init__(self):
        self.batches = iter([batch()[:4], batch()[4:]])
    def get_next(self):
        found = next(self.batches, None)
        return None if found is None else {"x": found}
class Rewound(Reader):
    def rewind(self):
        self.__init__()
reader = Rewound()
loader = [batch()[:4], batch()[4:]]
class Indexed:
    def __len__(self):
        return 2
    def __getitem__(self, number):
        return loader[number]
indexed = Indexed()
def one_label():
    yield batch(), 7
def returns_number():
    return 5
def ends_python():
    raise SystemExit(3)
    yield
def three():
    yield batch(), 1, 2
def no_class():
    yield batch(), np.ones((6, 4))
def ragged():
    yield {"x": [[1, 2], [3]]}
def needs_arguments(folder):
    yield batch()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "readers_of_this_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "readers_of_this_test"
    sys.modules.pop("readers_of_this_test", None)


def test_callable_gives_rows_of_its_batches_with_labels_in_every_pass(module):
    source = open_source(f"{module}:good", [FLOATS], None)
    for _ in range(2):
        samples = list(source)
        assert [sample.label for sample in samples] == [0, 1, 2, 3, 4, 5]
        for number, sample in enumerate(samples):
            np.testing.assert_array_equal(
                sample.load()["x"], np.full((1, 3, 4, 5), number, np.float32)
            )


def values(source):
    return [int(feed[0, 0, 0, 0]) for feed in feeds(source)]


@pytest.mark.parametrize(
    "name",
    ["bare", "with_labels", "lists", "whole", "batch", "Reader", "reader", "loader", "indexed"],
)
def test_every_form_of_items_and_of_what_gives_them(module, name):
    source = open_source(f"{module}:{name}", [FLOATS], None)
    assert values(source) == values(source) == [0, 1, 2, 3, 4, 5]
    if name == "with_labels":
        assert [sample.label for sample in source] == [0, 1, 2, 3, 4, 5]


def test_one_label_holds_for_a_batch(module):
    source = open_source(f"{module}:one_label", [FLOATS], None)
    assert [sample.label for sample in source] == [7] * 6


def test_a_script_by_its_path_also_in_other_processes(module, tmp_path, monkeypatch):
    script = tmp_path / "scripts" / "json.py"  # the name of a standard module
    script.parent.mkdir()
    script.write_text(MODULE)
    monkeypatch.chdir("/")
    source = open_source(f"{script}:bare", [FLOATS], None)
    assert values(source) == [0, 1, 2, 3, 4, 5]
    assert values(pickle.loads(pickle.dumps(source))) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match="cannot import"):
        open_source(f"{tmp_path}/absent.py:bare", [FLOATS], None)


def test_tensors_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    numbers = torch.from_numpy(NUMBERS).requires_grad_()
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(NUMBERS), torch.arange(6))
    exact = NUMBERS.astype(np.float32)
    for given in (
        [{"x": numbers}],
        [(numbers, torch.arange(6))],
        torch.utils.data.DataLoader(dataset, batch_size=4),
        numbers,
    ):
        source = CallableSource("given", given, (FLOATS,))
        np.testing.assert_array_equal(np.concatenate(feeds(source)), exact)
    source = CallableSource("given", [numbers.to(torch.bfloat16)], (FLOATS,))
    rounded = numbers.detach().to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(np.concatenate(feeds(source)), rounded)


def test_several_inputs_in_order_and_one_that_holds_for_all():
    ids = TensorSpec("ids", np.dtype(np.int64), (1, 7))
    tokens = np.arange(7)[None]
    for item in ((NUMBERS, tokens), (NUMBERS, tokens, [3] * 6), ((NUMBERS, tokens), 3)):
        source = CallableSource("given", [item], (FLOATS, ids))
        samples = list(source)
        assert len(samples) == 6
        for sample, image in zip(samples, NUMBERS):
            np.testing.assert_array_equal(sample.load()["x"][0], image)
            np.testing.assert_array_equal(sample.load()["ids"], tokens)
        assert {sample.label for sample in samples} == {None if item[-1] is tokens else 3}


def test_arrays_that_no_input_needs_are_not_read(tmp_path):
    np.savez(tmp_path / "d.npz", x=NUMBERS, other=np.zeros(100_000), names=np.array([{}, None]))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    at = content.index(b"other.npy") + 500_000
    content[at] ^= 1  # its checksum is wrong
    (tmp_path / "d.npz").write_bytes(content)
    np.testing.assert_array_equal(
        np.concatenate(feeds(open_source(str(tmp_path / "d.npz"), [FLOATS], None))), NUMBERS
    )
    with pytest.raises(DataError, match="must hold numbers"):
        open_arrays(tmp_path, x=np.array([{}, None]))


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_byte_orders_widths_and_fortran_order(tmp_path, dtype, suffix):
    stored = np.asfortranarray(NUMBERS.astype(dtype))
    path = tmp_path / f"d{suffix}"
    np.save(path, stored) if suffix == ".npy" else np.savez(path, stored)
    found = np.concatenate(feeds(open_source(str(path), [FLOATS], None)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored.astype(np.float32))


def test_arrays_by_position(tmp_path):
    ids = TensorSpec("ids", np.dtype(np.int64), (None, 7))
    tokens = np.arange(42).reshape(6, 7)
    np.savez(tmp_path / "d.npz", NUMBERS, tokens)
    samples = list(open_source(str(tmp_path / "d.npz"), [FLOATS, ids], None))
    np.testing.assert_array_equal(np.concatenate([s.load()["ids"] for s in samples]), tokens)


@pytest.mark.parametrize("kind", ["samples", "batches", "by input", "npz"])
def test_folders_of_arrays(tmp_path, kind):
    mask = TensorSpec("mask", np.dtype(np.float32), (1, 5))
    inputs = [FLOATS] if kind in ("samples", "batches") else [FLOATS, mask]
    every = np.ones((1, 5), np.float32)
    if kind == "by input":
        np.save(tmp_path / "x.npy", NUMBERS)
        np.save(tmp_path / "mask.npy", every)
    for number, row in enumerate(NUMBERS if kind != "by input" else ()):
        if kind == "npz":
            np.savez(tmp_path / f"{number}.npz", x=row[None], mask=every)
        else:
            np.save(tmp_path / f"{number}.npy", row if kind == "samples" else row[None])
    source = open_source(str(tmp_path), inputs, None)
    for again in (source, pickle.loads(pickle.dumps(source))):
        np.testing.assert_array_equal(np.concatenate(feeds(again)), NUMBERS)
    if len(inputs) == 2:
        assert {sample.load()["mask"].shape for sample in source} == {(1, 5)}


def test_callable_may_write_over_the_arrays_that_it_gave(module):
    samples = list(open_source(f"{module}:one_buffer", [FLOATS], None))
    assert [sample.load()["x"][0, 0, 0, 0] for sample in samples] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ("raises", "the disk is gone"),
        ("no_dict", "'x'"),
        ("other_names", r"\['z'\]"),
        ("scalars", "batch axis"),
        ("absent", "has no 'absent'"),
        ("value", "is not a function"),
        ("returns_number", "returned something of the type int"),
        ("ends_python", "SystemExit: 3"),
        ("three", r"a tuple of 3"),
        ("no_class", "a label is one integer per row"),
        ("ragged", "no array for the input 'x'"),
        ("needs_arguments", "TypeError"),
    ],
)
def test_callables_that_do_not_work(module, function, match):
    with pytest.raises(DataError, match=match):
        feeds(open_source(f"{module}:{function}", [FLOATS], None))


def test_module_that_is_not_there():
    with pytest.raises(DataError, match="cannot import 'no_such_module'"):
        open_source("no_such_module:f", [FLOATS], None)


def test_labels_by_file_by_position_and_from_arrays(tmp_path):
    write_images(tmp_path / "set")
    images = open_source(str(tmp_path / "set"), [FLOATS], Preprocess())
    rows = "\n".join(f"{number}.png,{10 + number}" for number in range(6))
    (tmp_path / "l.csv").write_text("file,label\n" + rows)
    labels = {sample.name[2]: sample.label for sample in read_labels(tmp_path / "l.csv", images)}
    assert labels == {str(number): 10 + number for number in range(6)}
    (tmp_path / "l.csv").write_text("label\n" + "\n".join("543210"))
    by_position = [sample.label for sample in read_labels(tmp_path / "l.csv", images)]
    assert by_position == [5, 4, 3, 2, 1, 0]
    np.savez(tmp_path / "l.npz", y=np.arange(6), x=PIXELS)
    assert [s.label for s in read_labels(tmp_path / "l.npz", images)] == list(range(6))


@pytest.mark.parametrize(
    "content",
    ["", "file\na.png", "file,label\nother.png,1", "label\nx", "label\n1\n2", "file,label\na.png"],
)
def test_labels_that_do_not_fit(tmp_path, content):
    write_images(tmp_path / "set")
    images = open_source(str(tmp_path / "set"), [FLOATS], Preprocess())
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(DataError, match="label"):
        list(read_labels(tmp_path / "l.csv", images))


def test_images_of_several_sizes_never_share_a_batch():
    from trtbuild.data import Sample

    shapes = [(1, 3, 4, 4), (1, 3, 4, 4), (1, 3, 5, 4), (1, 3, 4, 4)]
    samples = [
        Sample(str(n), bytes([n]), lambda shape=shape: {"x": np.zeros(shape, np.float32)})
        for n, shape in enumerate(shapes)
    ]
    assert [batch.names for batch in batches(samples, 3)] == [("0", "1"), ("2",), ("3",)]


@pytest.mark.parametrize("count", [1, 2])
def test_an_empty_folder_is_not_said_to_hold_images(tmp_path, count):
    with pytest.raises(DataError, match="is empty"):
        open_source(str(tmp_path), [FLOATS] * count, None)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about the name
        for factor in (1, 9):
            stream = io.BytesIO()
            np.save(stream, NUMBERS * factor)
            archive.writestr("x.npy", stream.getvalue())
    with pytest.raises(DataError, match="two arrays with the name 'x'"):
        open_source(str(tmp_path / "d.npz"), [FLOATS], None)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_large_npy_that_becomes_shorter_is_a_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_MAPPED_FROM", 1)
    np.save(tmp_path / "x.npy", NUMBERS)
    path = tmp_path / "x.npy" if kind == "file" else tmp_path
    source = open_source(str(path), [FLOATS], None)
    samples = iter(source)
    first = next(samples)
    np.testing.assert_array_equal(first.load()["x"], NUMBERS[:1])
    os.truncate(tmp_path / "x.npy", 200)
    for use in (first.load, lambda: next(samples)):
        with pytest.raises(DataError, match=r"x\.npy' was truncated while it was read"):
            use()


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_a_large_npy_are_those_of_the_array(kind, order, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_MAPPED_FROM", 1)
    np.save(tmp_path / "x.npy", np.asarray(NUMBERS.astype(kind), order=order))
    found = feeds(open_source(str(tmp_path / "x.npy"), [FLOATS], None))
    np.testing.assert_array_equal(np.concatenate(found), NUMBERS)


def test_an_array_that_git_did_not_fetch_is_named_so(tmp_path):
    np.save(tmp_path / "a.npy", NUMBERS)
    (tmp_path / "b.npy").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    source = open_source(str(tmp_path), [FLOATS], None)
    with pytest.raises(DataError, match=r"b\.npy' is not an array file, but a Git LFS pointer"):
        list(source)
