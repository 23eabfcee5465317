"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.command import FAST, HANGS_S, trtbuild
from tests.models import NETWORKS
from trtbuild.errors import OutputError
from trtbuild.files import atomic_path, make_directory, staged_files, write_text
from trtbuild.model import read_model
from trtbuild.model.writing import staged_model
from trtbuild.temporaries import temporary_folder


class Stop(BaseException):
    """Stands for Ctrl-C."""


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    flushed, flush = set(), os.fsync

    def noted(handle):
        flushed.add(os.fstat(handle).st_ino)
        flush(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(tmp_path / "alone", "a")
    with staged_files(tmp_path) as folder:
        write_text(folder / "staged", "b")
        with staged_files(folder) as inner:
            (inner / "staged twice").write_text("c")
    assert {file.stat().st_ino for file in tmp_path.iterdir()} == flushed
    assert len(flushed) == 3


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


def test_threads_that_write_at_once_leave_the_mask_of_new_files_alone(tmp_path, monkeypatch):
    """As when both forms of a network are written at the same time."""
    both, umask = threading.Barrier(2), os.umask

    def slow(mask: int) -> int:
        before = umask(mask)
        if mask == 0:  # until the other thread also reads the mask
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.5)
        return before

    kept = umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", slow)
        threads = [threading.Thread(target=write_text, args=(tmp_path / name, "")) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640] * 2
    finally:
        left = umask(kept)
    assert left == 0o027


def test_places_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        make_directory(blocked / "below")
    with pytest.raises(OutputError, match="file"):
        write_text(blocked / "below", "text")
    with pytest.raises(OutputError, match="file"), staged_files(blocked):
        pass


def test_what_is_no_regular_file_stays_what_it_is(tmp_path):
    link, real = tmp_path / "link", tmp_path / "folder" / "real"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    write_text(fifo, "content")
    reader.join()
    assert read == ["content"]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert {file.name for file in tmp_path.iterdir()} == {"link", "folder", "fifo"}
    write_text(Path(os.devnull), "nothing")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_link_that_leads_to_itself_stays(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="is a link to itself"):
        write_text(tmp_path / "a", "text")
    with pytest.raises(OutputError, match="is a link to itself"), staged_files(tmp_path) as folder:
        (folder / "a").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert all(path.is_symlink() for path in tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file(tmp_path):
    with pytest.raises(OutputError, match="folder"):
        write_text(tmp_path, "text")
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(OutputError, match="folder"))
        folder = stack.enter_context(staged_files(tmp_path))
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_move_that_fails_takes_the_others_back(tmp_path, monkeypatch, error):
    (tmp_path / "a").write_text("old")
    real = Path.replace

    def replace(source, target):
        if target == tmp_path / "c":
            raise error
        return real(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    with contextlib.suppress(OutputError, KeyboardInterrupt), staged_files(tmp_path) as folder:
        for name in "abc":
            (folder / name).write_text("new")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}


@pytest.fixture
def moved(monkeypatch):
    """The names of the moved files in order, without temporary ones of single files."""
    found, real = [], Path.replace

    def replace(source, target):
        if source.parent.name.startswith(".building-"):
            found.append(target.name)
        return real(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    return found


@pytest.mark.parametrize("last", "abc")
def test_the_last_file_is_moved_last_whenever_it_was_written(tmp_path, moved, last):
    with staged_files(tmp_path, last=last) as folder:
        for name in (last, *"abc".replace(last, "")):
            (folder / name).write_text("new")
            os.utime(folder / name, ns=(0, 0))
    assert moved[-1] == last
    assert sorted(moved) == ["a", "b", "c"]


def test_the_manifest_is_the_last_file_of_a_build(tmp_path, moved, capsys):
    model, data = NETWORKS["opset_13"].save(tmp_path)
    out = tmp_path / "out"
    command = ("engine", model, "--int8", "--data", data, "-o", out, "--no-latency", "-q", *FAST)
    assert trtbuild(capsys, *command).code == 0
    assert len(moved) > 3
    assert moved[-1].endswith(".manifest.json")


def test_folders_of_killed_builds_are_swept(tmp_path):
    code = (
        "import os, pathlib; from trtbuild.files import staged_files\n"
        f"with staged_files(pathlib.Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'half').write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.glob(".building-*"))) == 1
    other = tmp_path / ".building-another.machine-1-x"
    other.mkdir()
    with staged_files(tmp_path) as mine, staged_files(tmp_path):
        assert mine.is_dir()
    assert list(tmp_path.iterdir()) == [other]


def test_temporary_folders_of_killed_processes_are_swept(tmp_path, monkeypatch):
    code = (
        "import os; from trtbuild.temporaries import temporary_folder\n"
        "with temporary_folder() as folder:\n"
        "    (folder / 'network.onnx').write_text('half'); os._exit(9)"
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with temporary_folder() as mine, temporary_folder() as other:
        assert {mine, other} == set(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_temporary_files_of_killed_processes_are_swept(tmp_path):
    path = tmp_path / "ranges [1].json"
    code = (
        "import os, pathlib; from trtbuild.files import atomic_path\n"
        f"with atomic_path(pathlib.Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".another.json").write_text("mine")
    with atomic_path(path) as one, atomic_path(path):
        one.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, ".another.json"}
    assert path.read_text() == "whole"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_what_another_container_works_on_is_not_swept(tmp_path, monkeypatch):
    """Its process ID means nothing here, where it looks dead."""

    def no_such_process(process: int, signal: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", no_such_process)
    with staged_files(tmp_path) as theirs, atomic_path(tmp_path / "f") as file:
        (theirs / "a").write_text("theirs")
        file.write_text("theirs")
        with staged_files(tmp_path) as mine, atomic_path(tmp_path / "f") as other:
            (mine / "b").write_text("mine")
            other.write_text("mine")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "a": "theirs", "b": "mine", "f": "theirs"
    }  # fmt: skip


def test_a_name_as_long_as_names_may_be(tmp_path):
    for name in ("n" * 255, "é" * 120 + ".json", "n." + "s" * 250):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"


def test_weights_are_there_before_the_network_that_names_them(tmp_path, moved):
    model = read_model(NETWORKS["opset_13"].save(tmp_path)[0])
    with staged_model(model, tmp_path / "out.onnx", external_data=True):
        pass
    assert moved == ["out.onnx.data", "out.onnx"]


def test_weights_beside_a_network_go_to_the_disk_while_they_are_written(tmp_path, monkeypatch):
    """The system reports an error of the disk once, so one from that time must not be lost."""
    model, flushed = read_model(NETWORKS["opset_13"].save(tmp_path)[0]), threading.Event()

    def fails_once(_):
        if not flushed.is_set():
            flushed.set()
            raise OSError(errno.EIO, "the disk fails")

    def late():
        assert flushed.wait(HANGS_S)
        return ir.tensor(np.zeros(100, np.float32))

    weight = next(iter(model.graph.initializers.values()))
    weight.const_value = ir.LazyTensor(late, ir.DataType.FLOAT, ir.Shape([100]))
    monkeypatch.setattr(os, "fsync", fails_once)
    out = tmp_path / "out.onnx"
    with (
        pytest.raises(OutputError, match="the disk fails"),
        staged_model(model, out, external_data=True),
    ):
        pass
    assert not out.exists()


@pytest.mark.parametrize("kind", [staged_files, lambda _: temporary_folder()])
def test_weights_go_into_a_folder_that_is_being_filled(tmp_path, kind):
    """This process already holds the folder's lock: waiting for it would never end."""
    model = read_model(NETWORKS["opset_13"].save(tmp_path)[0])
    found = []

    def write():
        with kind(tmp_path) as folder:
            with staged_model(model, folder / "out.onnx", external_data=True):
                pass
            found.extend(sorted(file.name for file in folder.iterdir()))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(HANGS_S)
    assert found == ["out.onnx", "out.onnx.data"]
