"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib

import pytest

from trtbuild.errors import OutputError
from trtbuild.files import atomic_path, make_directory, staged_files, write_text


class Stop(BaseException):
    """Stands for Ctrl-C."""


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with contextlib.suppress(Stop), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise Stop
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["f.txt"]


def test_staged_files_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with contextlib.suppress(Stop), staged_files(tmp_path) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
        raise Stop
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}
    with staged_files(tmp_path) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_places_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        make_directory(blocked / "below")
    with pytest.raises(OutputError, match="file"):
        write_text(blocked / "below", "text")
    with pytest.raises(OutputError, match="file"), staged_files(blocked):
        pass
