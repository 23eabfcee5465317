"""The public names: there, documented, and the documentation's code runs."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import pytest

import calibrators
import trtbuild

PROJECT = Path(__file__).resolve().parent.parent
PAGE = (PROJECT / "docs" / "python-api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", [trtbuild, calibrators])
def test_every_public_name_is_there_and_says_what_it_is(package):
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        found = getattr(package, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert inspect.getdoc(found), name


def test_a_name_that_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trtbuild.nothing


def test_the_page_lists_exactly_the_public_names():
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(listed) == sorted(trtbuild.__all__)


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    shutil.copytree(PROJECT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    exec(compile(code, "docs/python-api.md", "exec"), {})  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "kept in float by --float 'Gemm'" in said
    assert (tmp_path / "out" / "digits.manifest.json").is_file()
    assert not list((tmp_path / "out").glob(".*"))
