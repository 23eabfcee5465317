"""The Python code of the pages runs, and their examples of settings are valid."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import trtbuild
from tests.networks.network import sentence_embedding
from trtbuild.options.fields import options_of
from trtbuild.options.preprocess import Preprocess, read_preprocess
from trtbuild.options.tables import read_table
from trtbuild.toml_files import read_toml

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("samples/*/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# Pages whose Python runs as one program in a folder that has the samples.
RUN = ("README.md", "docs/data.md", "docs/plugins.md")
TRANSFORMER = "docs/tutorial-transformer.md"


@pytest.mark.parametrize("name", RUN)
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch) -> None:
    shutil.copytree(PROJECT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])  # a page may add to it
    code = "\n".join(blocks(PROJECT / name, "python"))
    found: dict = {}
    exec(compile(code, name, "exec"), found)  # noqa: S102 - our own page
    # only the README's build has a limit
    assert found["built"].verdict == ("SHIP" if name == "README.md" else "NOT JUDGED")
    assert found["built"].engine.is_file()


class Tokenizer:
    """Replaces the tokenizer of ``transformers``, which is loaded from the network."""

    @classmethod
    def from_pretrained(cls, name):
        assert "/" in name
        return cls()

    def __call__(self, text, padding, max_length, truncation, return_tensors):
        assert (padding, truncation, return_tensors) == ("max_length", True, "np")
        ids = [1 + sum(map(ord, word)) % 999 for word in text.split()][:max_length]
        rest = [0] * (max_length - len(ids))
        mask = np.array([[1] * len(ids) + rest])
        return {"input_ids": np.array([ids + rest]), "attention_mask": mask}


def test_the_data_of_the_transformer_go_into_its_build(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    package = ModuleType("transformers")
    monkeypatch.setattr(package, "AutoTokenizer", Tokenizer, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", package)
    (code,) = blocks(PROJECT / TRANSFORMER, "python")
    name = code.splitlines()[0].removeprefix("# ")
    Path(name).write_text(code)
    random = np.random.default_rng(0)
    words = [chr(97 + i) * (1 + i % 5) for i in range(26)]
    lines = [" ".join(random.choice(words, 4 + i % 20)) for i in range(24)]
    Path("sentences.txt").write_text("\n".join(lines))
    onnx.save(sentence_embedding(), "minilm.onnx")
    data = f"{name}:calibration"
    built = trtbuild.build(
        "minilm.onnx", data, task="embed", min_agreement=50, latency=False, output="out"
    )
    assert built.metrics["engine"]["same nearest neighbour"] > 50


def test_all_python_of_the_tutorials_is_run() -> None:
    pages = [PROJECT / "README.md", *PROJECT.glob("docs/tutorial-*.md")]
    with_code = {str(page.relative_to(PROJECT)) for page in pages if blocks(page, "python")}
    assert with_code <= {*RUN, TRANSFORMER}


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
