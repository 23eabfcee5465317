"""The JSON encoder of all files and every ``--json`` of trtbuild."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from trtbuild.enums import StrEnum
from trtbuild.errors import InputError
from trtbuild.json_codec import decode, dumps, encode, load_object


class Color(StrEnum):
    RED = "red"


class Number(Enum):
    ONE = 1


@dataclass(frozen=True)
class Inner:
    value: float


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[float, ...]
    by_name: dict[str, Inner]
    nothing: int | None = None


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (np.float32("inf"), "inf"),
        (np.float64("nan"), "nan"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.asarray(2.5), 2.5),
        (Color.RED, "red"),
        (Number.ONE, 1),
        (PurePosixPath("a/b"), "a/b"),
        ((1, [2, None]), [1, [2, None]]),
        ({Color.RED: Inner(math.inf)}, {"red": {"value": "inf"}}),
        ({0: "batch"}, {"0": "batch"}),
    ],
)
def test_every_kind_of_value_is_written_in_one_way(value, plain) -> None:
    assert encode(value) == plain
    assert type(encode(value)) is type(plain)
    assert json.loads(dumps(value)) == plain


@pytest.mark.parametrize("value", [object(), {True: 2}, np.zeros(2), {1, 2}, b"bytes"])
def test_what_no_record_holds_is_refused(value) -> None:
    with pytest.raises(TypeError, match="as JSON"):
        encode(value)


def test_records_come_back_as_they_were() -> None:
    record = Outer(Inner(math.inf), (1.0, -math.inf), {"a": Inner(0.25)})
    assert decode(Outer, json.loads(dumps(record)), "it") == record


def test_a_file_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"net\xff.onnx")
    path = tmp_path / "out.json"
    path.write_bytes(dumps({"file": name}).encode())
    assert json.loads(path.read_bytes()) == {"file": name}


@pytest.mark.parametrize("count", [2**63, -(2**63), 10**400])
def test_whole_numbers_beyond_64_bits_are_refused(count) -> None:
    record = {"inner": {"value": 1.0}, "pair": [], "by_name": {}, "nothing": count}
    with pytest.raises(InputError, match="nothing should be a whole number of at most"):
        decode(Outer, record, "net.json")


def test_what_a_terminal_obeys_is_escaped_and_read_back():
    name = "é漢\u202eb\ufeff\x9b31m\x7f\U000e0041\u2028"
    text = dumps({"name": name})
    assert json.loads(text) == {"name": name}
    assert "é漢" in text
    assert text.replace("é漢", "").isascii()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "is not a kind file: it names no schema."),
        ({"version": 1}, "is not a kind file: it names no schema."),
        ({"schema": "other", "version": 1}, "is not a kind file: its schema is 'other'."),
        (
            {"schema": "kind", "version": 2},
            "is of version 2 of kind, and this trtbuild reads version 1.",
        ),
    ],
)
def test_a_file_of_another_kind_or_version_is_told_apart(tmp_path: Path, content, said) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as refused:
        load_object(path, "kind", 1)
    assert said in str(refused.value)
