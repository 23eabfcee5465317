"""One tree of errors: every error is a `TrtbuildError`, with one exit code per class."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from pathlib import Path

import click
import pytest

import calibrators.errors
import trtbuild.errors
from tests.command import trtbuild as command
from tests.models import NETWORKS
from trtbuild import EngineRecipe, build_engine
from trtbuild.errors import (
    DataError,
    InputError,
    MissingError,
    ModelError,
    OptionError,
    TrtbuildError,
    decoding,
    in_one_tree,
)
from trtbuild.jobs import engine as job


def subclasses(root):
    return [root, *(each for child in root.__subclasses__() for each in subclasses(child))]


OURS = subclasses(TrtbuildError)
THEIRS = {
    "CalibratorError": InputError,
    "ObservationError": DataError,
    "MethodError": OptionError,
    "MergeError": InputError,
    "CalibrationFileError": InputError,
    "CacheError": InputError,
    "NotInstalledError": MissingError,
}


def raising(monkeypatch, error):
    def load(*given):
        raise error

    monkeypatch.setattr(job, "load_recorded", load)


def test_every_error_of_calibrators_has_its_place():
    assert {kind.__name__ for kind in subclasses(calibrators.errors.CalibratorError)} == set(THEIRS)


@pytest.mark.parametrize("name", THEIRS)
def test_build_engine_raises_the_tree_alone(name, monkeypatch, tmp_path):
    raising(monkeypatch, getattr(calibrators.errors, name)("what was wrong."))
    recipe = EngineRecipe(tmp_path / "net.onnx", tmp_path)
    with pytest.raises(TrtbuildError, match=r"^what was wrong\.$") as raised:
        build_engine(recipe)
    assert type(raised.value) is THEIRS[name]


@pytest.mark.parametrize("name", THEIRS)
def test_the_command_line_has_the_same_exit_code(name, monkeypatch, tmp_path, capsys):
    raising(monkeypatch, getattr(calibrators.errors, name)("what was wrong."))
    (tmp_path / "net.onnx").touch()
    options = ("--int8", "--random-data", "-o", tmp_path / "out")
    outcome = command(capsys, "engine", tmp_path / "net.onnx", *options)
    assert (outcome.code, outcome.err) == (THEIRS[name].exit_code, "trtbuild: what was wrong.\n")


def test_what_is_no_error_of_a_user_stays_what_it_is(monkeypatch, tmp_path):
    raising(monkeypatch, ZeroDivisionError("a bug"))
    recipe = EngineRecipe(tmp_path / "net.onnx", tmp_path)
    with pytest.raises(ZeroDivisionError):
        build_engine(recipe)


def test_the_page_draws_the_whole_tree():
    drawn = trtbuild.errors.__doc__
    assert all(f" {kind.__name__} " in drawn for kind in OURS)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_errors_come_back_from_other_processes(kind):
    error = kind("what was wrong.")
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found)) == (kind, "what was wrong.")


@pytest.mark.parametrize(
    "raised",
    [ValueError("odd"), KeyError("k"), MemoryError(), OverflowError("big"), TypeError("t")],
    ids=repr,
)
def test_whatever_a_decoder_raises_is_one_kind(raised):
    reader = decoding(DataError, "cannot read 'f'", "Make it again.")
    with pytest.raises(DataError, match=r"^cannot read 'f': .+\. Make it again\.$"), reader:
        raise raised


def test_an_error_of_the_tree_passes_a_reader_as_it_is():
    reader = decoding(DataError, "cannot read 'f'")
    with pytest.raises(ModelError, match=r"^no such weight\.$"), reader:
        raise ModelError("no such weight.")


def test_an_interrupt_while_packages_load_stays_an_interrupt(monkeypatch):
    for name in ("calibrators", "calibrators.errors"):
        monkeypatch.setitem(sys.modules, name, None)  # makes the next import of it fail
    with pytest.raises(click.Abort), in_one_tree():
        raise click.Abort


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES, errno.ENOSPC, errno.EMFILE])
def test_what_the_system_refuses_is_one_sentence(number):
    def refused():
        raise OSError(number, os.strerror(number), "a/b")

    with pytest.raises(InputError, match=f"the system refuses 'a/b': {os.strerror(number)}"):
        in_one_tree()(refused)()
    with pytest.raises(BrokenPipeError), in_one_tree():
        raise BrokenPipeError(errno.EPIPE, "gone")


LONG = "n" * 300  # file systems allow 255 bytes


@pytest.mark.parametrize(
    "line",
    [
        f"init {LONG}",
        f"init m.onnx -o {LONG}",
        f"inspect {LONG}",
        f"export-triton {LONG} -o r",
        f"check {LONG}",
        f"diff {LONG} {LONG}",
        f"bench {LONG}",
        f"rebuild {LONG}",
        f"optimize m.onnx {LONG}",
        f"engine m.onnx --int8 --data {LONG} --dry-run",
        f"engine m.onnx --int8 --data {LONG}:f --dry-run",
        f"engine m.onnx --int8 --random-data -o {LONG} --dry-run",
        f"engine m.onnx --int8 --random-data --report {LONG} --dry-run",
    ],
)
def test_a_name_that_no_file_system_takes_is_said(line, tmp_path, monkeypatch, capsys):
    if line.startswith("check"):
        pytest.importorskip("tensorrt_rtx_bindings", reason="check asks for a parser first")
    monkeypatch.chdir(tmp_path)
    model, _ = NETWORKS["opset_13"].save(tmp_path)
    model.rename("m.onnx")
    done = command(capsys, *line.split())
    assert done.code == 2, done.err
    assert LONG[:40] in done.err


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a system without it")
@pytest.mark.parametrize(
    "line",
    [
        "engine --recipe /dev/zero --dry-run",
        "rebuild /dev/zero",
        "cache show /dev/zero",
        "quantize m.onnx --calibration /dev/zero -o q.onnx",
        "verify m.onnx m.onnx --data d.npz --labels /dev/zero",
    ],
)
def test_a_device_without_an_end_is_not_read(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, data = NETWORKS["opset_13"].save(tmp_path)
    model.rename("m.onnx")
    data.rename("d.npz")
    done = command(capsys, *line.split())
    assert done.code == 2, done.err
    assert "'/dev/zero'" in done.err
    assert "is a device, not a file" in done.err


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps folders that are in use")
def test_a_current_folder_that_was_removed_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the current folder, which was removed"), in_one_tree():
        os.getcwd()  # noqa: PTH109 - what libraries call
