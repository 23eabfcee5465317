"""Labels: matched by name or by position, and refused if ambiguous."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from trtbuild.data import Preprocess, open_source
from trtbuild.data.labels import read_labels
from trtbuild.errors import DataError
from trtbuild.model.signature import TensorSpec
from trtbuild.options.data import FOLDERS, DataRecipe
from trtbuild.options.tables import make, read_table, to_table
from trtbuild.visible import visible

SPEC = TensorSpec("x", np.dtype(np.float32), ("N", 3, 4, 5))
GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)


def images(folder, names):
    """A different image under each name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY + np.uint8(number)).save(path)
    return open_source(str(folder), [SPEC], Preprocess())


def labels_of(path, source):
    return {sample.name: sample.label for sample in read_labels(path, source)}


@pytest.mark.parametrize(
    "content",
    [
        "file,label\nb.png,7\na.png,3\n",
        "\ufefffile,label\nb.png,7\na.png,3\n",
        "filename,label\r\nb.png,7\r\na.png,3\r\n",
        "file,label,synset,name\nb.png,7,n01,tench\na.png,3,n02,hen\n",
        "label;Image\n7;b.png\n3;a.png\n",
        "path\tlabel\nval/b.png\t7\nval/a.png\t3\n",
        "file,label\n.\\b.png,7\na.png,3\na.png,3\n",
        "file,label\nb.png,7\n\na.png, 3\nnot there.png,1\n",
    ],
)
def test_tables_by_name(tmp_path, content):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    path = tmp_path / "l.csv"
    path.write_bytes(content.encode())
    assert labels_of(path, source) == {"a.png": 3, "b.png": 7}
    path.write_bytes(content.removeprefix("\ufeff").encode("utf-16"))
    assert labels_of(path, source) == {"a.png": 3, "b.png": 7}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("index,label\n0,7\n1,3\n", "not clear which names the sample"),
        ("file,path,label\na.png,a.png,1\nb.png,b.png,2\n", "not clear"),
        ("label,label\n1,2\n3,4\n", "one column 'label'"),
        ("file,class\na.png,1\nb.png,2\n", "one column 'label'"),
        ("a.png,1\nb.png,2\n", "one column 'label'"),
        ("label\n1\n2\n3\n", "^3 labels for .* 2 samples: give"),
        ("label\n1\n", "^1 label for .*, which has more samples"),
        ("file,label\na.png,cat\nb.png,dog\n", "the label 'cat'"),
        ("file,label\na.png,-1\nb.png,0\n", "the label '-1'"),
        ("file,label\na.png,1.0\nb.png,0\n", r"the label '1\.0'"),
        ("file,label\na.png,1\na.png,2\nb.png,0\n", "two classes, 1 and 2"),
        ("file,label\na.png,1,5\nb.png,0\n", "has 3 columns"),
        ("file,label\na.png,1\n", r"no entry for the image 'b\.png'"),
        ("file,label\n", "no label"),
    ],
)
def test_tables_with_more_than_one_reading_are_refused(tmp_path, content, match):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(DataError, match=match):
        labels_of(tmp_path / "l.csv", source)


def test_one_sample_is_not_called_samples(tmp_path):
    source = images(tmp_path / "set", ["a.png"])
    (tmp_path / "l.csv").write_text("label\n1\n2\n")
    with pytest.raises(DataError, match="which has 1 sample:"):
        labels_of(tmp_path / "l.csv", source)


def test_one_name_in_two_folders(tmp_path):
    source = images(tmp_path / "set", ["a/1.png", "b/1.png"])
    path = tmp_path / "l.csv"
    path.write_text("file,label\n1.png,4\n")
    with pytest.raises(DataError, match=r"fits two samples, 'a/1\.png' and 'b/1\.png'"):
        labels_of(path, source)
    path.write_text("file,label\na/1.png,4\nb/1.png,5\n")
    assert labels_of(path, source) == {"a/1.png": 4, "b/1.png": 5}
    below = open_source(str(tmp_path / "set" / "a"), [SPEC], Preprocess())
    with pytest.raises(DataError, match="several entries"):
        labels_of(path, below)
    path.write_text("file,label\nb/1.png,4\nb/1.jpg,5\n")
    with pytest.raises(DataError, match=r"no entry for the image 'a/1\.png'"):
        labels_of(path, source)


@pytest.mark.parametrize(
    "content", ["a.png 3\nb c.png 7\n", "a.png,3\nb c.png, 7\n", "val/a.png\t3\n\nval/b c.png\t7"]
)
def test_text_of_names_and_labels(tmp_path, content):
    source = images(tmp_path / "set", ["a.png", "b c.png"])
    for name in ("val.txt", "val.LST", "val.list"):  # what is read as a list of images
        (tmp_path / name).write_text(content)
        assert labels_of(tmp_path / name, source) == {"a.png": 3, "b c.png": 7}


def test_text_of_labels_alone(tmp_path):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    (tmp_path / "l.txt").write_text("3\n7\n")
    assert labels_of(tmp_path / "l.txt", source) == {"a.png": 3, "b.png": 7}
    for content, match in (("3\nb.png 7\n", "some lines"), ("a.png cat\nb.png 1", "'cat'")):
        (tmp_path / "l.txt").write_text(content)
        with pytest.raises(DataError, match=match):
            labels_of(tmp_path / "l.txt", source)
    (tmp_path / "l.txt").write_bytes(b"\xff\x80 3")
    with pytest.raises(DataError, match="not UTF-8 text"):
        labels_of(tmp_path / "l.txt", source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.json", '{"b.png": 7, "a.png": 3}'),
        ("l.JSON", '\ufeff{"val/b.png": 7, "val/a.png": 3, "not there.png": 1}'),
        ("l.json", '[{"file": "b.png", "label": 7}, {"label": 3, "file": "a.png"}]'),
        ("l.json", "[3, 7]"),
        ("l.jsonl", '{"file": "b.png", "label": 7}\n\n{"file": "a.png", "label": 3}\n'),
        (
            "l.ndjson",
            '{"file_name": "b.png", "label": "7", "w": 1}\n{"file_name": "a.png", "label": 3, "w": 2}',
        ),
        ("l.jsonl", "3\n7\n"),
        ("l.jsonl", '{"label": 3}\n{"label": 7}'),
    ],
)
def test_labels_in_json(tmp_path, name, content):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    (tmp_path / name).write_text(content)
    assert labels_of(tmp_path / name, source) == {"a.png": 3, "b.png": 7}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", ["\u2028", "\x85", " "])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("l.jsonl", ['{{"file": "a.png", "label": 3}}', '{{"file": "{}", "label": 7}}']),
        ("l.csv", ["file,label", "a.png,3", "{},7"]),
        ("l.txt", ["a.png 3", "{} 7"]),
    ],
)
def test_names_may_hold_what_python_takes_for_the_end_of_a_line(
    tmp_path, name, lines, between, ends
):
    image = f"b{between}c.png"
    source = images(tmp_path / "set", ["a.png", image])
    (tmp_path / name).write_bytes("".join(line.format(image) + ends for line in lines).encode())
    assert labels_of(tmp_path / name, source) == {"a.png": 3, visible(image): 7}


def test_a_table_quotes_a_name_with_an_end_of_a_line(tmp_path):
    source = images(tmp_path / "set", ["a\nb.png", "c.png"])
    (tmp_path / "l.csv").write_text('file,label\n"a\nb.png",3\nc.png,7\n')
    assert labels_of(tmp_path / "l.csv", source) == {r"a\nb.png": 3, "c.png": 7}


@pytest.mark.parametrize("shown", [str, visible])
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("l.csv", lambda image: f"file,label\n{image},3\nb.png,7\n"),
        ("l.json", lambda image: json.dumps({image: 3, "b.png": 7})),
    ],
)
def test_labels_name_images_whose_names_have_invisible_characters(tmp_path, name, written, shown):
    image = " \U0001f469\u200d\U0001f467.png"  # one picture, joined of two by a character
    source = images(tmp_path / "set", [image, "b.png"])
    (tmp_path / name).write_text(written(shown(image)))
    assert labels_of(tmp_path / name, source) == {visible(image): 3, "b.png": 7}


def test_labels_name_samples_of_a_file_whose_name_has_invisible_characters(tmp_path):
    path = tmp_path / "a\u200db.npy"
    np.save(path, np.zeros((2, 3, 4, 5), np.float32))
    source = open_source(str(path), [SPEC], None)
    first, second = (sample.name for sample in source)
    (tmp_path / "l.csv").write_text(f"file,label\n{first},3\n{second},7\n")
    assert labels_of(tmp_path / "l.csv", source) == {first: 3, second: 7}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("l.json", '{"a.png": 3, "b.png": 7', "cannot be read as JSON"),
        ("l.json", '{"labels": [3, 7]}', r"no number at 'labels': write \{\"a.png\": 3"),
        ("l.json", '{"labels": {"a.png": 3, "b.png": 7}}', "no number at 'labels': write"),
        ("l.json", "7", "hold no labels: write"),
        ("l.json", "[[3, 7]]", "entry 1 of the labels .* is a list: write"),
        ("l.json", '{"a.png": 3, "a.png": 4, "b.png": 7}', "two classes, 3 and 4"),
        ("l.json", '{"a.png": "cat", "b.png": 7}', "entry 'a.png' of .* the label 'cat'"),
        ("l.json", '{"a.png": 3.0, "b.png": 7}', r"the label '3\.0'"),
        ("l.json", '{"a.png": true, "b.png": 7}', "the label 'true'"),
        ("l.json", '{"a.png": -3, "b.png": 7}', "the label '-3'"),
        ("l.json", '{"a.png": 1e999, "b.png": 7}', "the label '1e999'"),
        ("l.json", '{"a.png": 3}', r"no entry for the image 'b\.png'"),
        ("l.json", "{}", "no label"),
        ("l.jsonl", '{"file": "a.png", "class": 3}', "line 1 of .* needs one field 'label'"),
        ("l.jsonl", '{"label": 3, "label": 4}', "needs one field 'label'"),
        ("l.jsonl", '{"index": 0, "label": 3}', "not clear which names the sample"),
        ("l.jsonl", '{"file": "a.png", "label": 3}\n7', "a name and others have none"),
        (
            "l.jsonl",
            '{"file": "a.png", "label": 3}\n{"file"',
            "line 2 of .* cannot be read as JSON",
        ),
        ("l.json", "[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_json_with_another_reading_is_refused(tmp_path, name, content, match):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=match):
        labels_of(tmp_path / name, source)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"a": np.arange(2), "b": np.arange(2)}, "not clearly|clearly the labels"),
        ({"y": np.arange(2), "labels": np.arange(2)}, "clearly the labels"),
        ({"y": np.array(["cat", "dog"])}, "position of each class"),
        ({"y": np.eye(2)}, "One-hot"),
        ({"y": np.eye(2, dtype=np.int64)}, "One-hot"),
        ({"y": np.arange(2.0)}, "whole numbers"),
        ({"y": np.array([0, -1])}, "the label -1"),
        ({"y": np.arange(3)}, "^3 labels for"),
        ({}, "no array"),
    ],
)
def test_arrays_with_more_than_one_reading_are_refused(tmp_path, arrays, match):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    np.savez(tmp_path / "l.npz", **arrays)
    with pytest.raises(DataError, match=match):
        labels_of(tmp_path / "l.npz", source)


def test_the_only_vector_of_whole_numbers(tmp_path):
    source = images(tmp_path / "set", ["a.png", "b.png"])
    np.savez(tmp_path / "l.npz", classes=np.array([3, 7]), x=np.ones((2, 3)))
    assert labels_of(tmp_path / "l.npz", source) == {"a.png": 3, "b.png": 7}


NAMES = ["dog/1.png", "cat/1.png", "cat/deep/2.png", "eel/1.png"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_class_folders(tmp_path, kind):
    place = tmp_path / "set"
    source = images(place, NAMES)
    prefix = ""
    if kind == "tar":
        with tarfile.open(tmp_path / "set.tar", "w") as archive:
            archive.add(place, arcname="all/set")
        source, prefix = open_source(str(tmp_path / "set.tar"), [SPEC], Preprocess()), "all/set/"
    recipe = make(DataRecipe, read_table(DataRecipe, {"labels": FOLDERS}, "r", tmp_path))
    assert to_table(recipe, tmp_path)["labels"] == FOLDERS
    found = labels_of(recipe.labels, source)
    wanted = {"cat/1.png": 0, "cat/deep/2.png": 0, "dog/1.png": 1, "eel/1.png": 2}
    assert found == {prefix + name: label for name, label in wanted.items()}


def test_classes_of_another_folder(tmp_path):
    source = images(tmp_path / "set", NAMES)
    for name in ("ant", "cat", "dog", "eel", ".hidden"):
        (tmp_path / "train" / name).mkdir(parents=True)
    found = labels_of(tmp_path / "train", source)
    assert found == {"cat/1.png": 1, "cat/deep/2.png": 1, "dog/1.png": 2, "eel/1.png": 3}
    (tmp_path / "train" / "eel").rmdir()
    with pytest.raises(DataError, match=r"'eel/1\.png' lies in no class folder"):
        labels_of(tmp_path / "train", source)


def test_folders_of_numbers_that_are_not_their_classes_are_warned_of(tmp_path, caplog):
    found = labels_of(FOLDERS, images(tmp_path / "some", ["3/a.png", "7/b.png"]))
    assert found == {"3/a.png": 0, "7/b.png": 1}
    assert "the folder '3' is class 0, its position among the names in order" in caplog.text
    caplog.clear()
    for names in (["0/a.png", "1/b.png"], ["3/a.png", "dog/b.png"]):
        labels_of(FOLDERS, images(tmp_path / names[1][0], names))
    assert caplog.text == ""


def test_what_has_no_class_folders(tmp_path):
    from pathlib import Path

    source = images(tmp_path / "one", ["cat/1.png"])
    with pytest.raises(DataError, match="1 class folder"):
        labels_of(Path(FOLDERS), source)
    source = images(tmp_path / "set", [*NAMES, "0.png"])
    with pytest.raises(DataError, match=r"'0\.png' lies in no class folder"):
        labels_of(Path(FOLDERS), source)
    np.save(tmp_path / "d.npy", np.ones((2, 3, 4, 5), np.float32))
    with pytest.raises(DataError, match="has no class folders"):
        labels_of(Path(FOLDERS), open_source(str(tmp_path / "d.npy"), [SPEC], None))
