"""The code of the pages about data and plug-ins runs, and their examples of settings are settings."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from trtbuild.options.fields import options_of
from trtbuild.options.preprocess import Preprocess, read_preprocess
from trtbuild.options.values import read_table
from trtbuild.toml_files import read_toml

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("samples/*/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", ["data.md", "plugins.md"])
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch) -> None:
    shutil.copytree(PROJECT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(PROJECT / "docs" / name, "python"))
    found: dict = {}
    exec(compile(code, name, "exec"), found)  # noqa: S102 - our own page
    assert found["built"].verdict == "NOT JUDGED"
    assert found["built"].int8_model.is_file()


def test_the_code_of_the_page_about_two_engines_runs(tmp_path, monkeypatch) -> None:
    shutil.copytree(PROJECT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(PROJECT / "docs" / "comparing-engines.md", "python"))
    found: dict = {}
    exec(compile(code, "comparing-engines.md", "exec"), found)  # noqa: S102 - our own page
    assert found["moved"] == ["/6/Gemm"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_python_on_every_page_is_python(page) -> None:
    for code in blocks(page, "python"):
        ast.parse(code)


def test_every_key_of_the_preprocessing_has_an_example_that_is_read(tmp_path) -> None:
    page = PROJECT / "docs" / "data.md"
    rows = re.findall(
        r"^\| `(\w+)` \| `--[\w-]+` \|.*\| `(.*)` \|$", page.read_text(), re.MULTILINE
    )
    assert sorted(key for key, _ in rows) == sorted(field.name for field in options_of(Preprocess))
    for number, example in enumerate([*(example for _, example in rows), *blocks(page, "toml")]):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        read_table(Preprocess, read_toml(file, "example"), str(file))
    for number, _ in enumerate(blocks(page, "toml"), len(rows)):
        read_preprocess(tmp_path / f"{number}.toml", {})
