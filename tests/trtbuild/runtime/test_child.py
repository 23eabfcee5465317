"""Our child processes find our modules and the user's, and no file that merely has such a name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import trtbuild
from trtbuild.runtime.child import start_module

if TYPE_CHECKING:
    from pathlib import Path

TELLS = """
import json, sys
import trtbuild
print(json.__file__, trtbuild.__file__, sep="\\n", flush=True)
"""


@pytest.mark.parametrize("is_user_folder", [False, True])
def test_a_file_with_the_name_of_a_module_is_not_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_user_folder: bool
) -> None:
    here, theirs = tmp_path / "here", tmp_path / "theirs"
    for folder in (here, theirs):
        folder.mkdir()
        for name in ("json", "runpy", "types", "trtbuild", "numpy"):
            (folder / f"{name}.py").write_text("raise SystemExit('a file of the user')")
    (theirs / "tells.py").write_text(TELLS)
    monkeypatch.chdir(here)
    if is_user_folder:
        monkeypatch.syspath_prepend(theirs)  # as `--judge script.py:name` does
        monkeypatch.syspath_prepend("")  # as in a notebook
    else:
        monkeypatch.setattr(sys, "path", [*sys.path, str(theirs)])
    with start_module("tells", subprocess.DEVNULL) as process:
        assert process.stdout is not None
        found = process.stdout.read().decode().splitlines()
    assert process.returncode == 0
    import json

    assert found[:2] == [json.__file__, trtbuild.__file__]
