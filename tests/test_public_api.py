"""The public names exist and are documented, and the documentation's code runs."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
import shutil
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import calibrators
import trtbuild
from trtbuild import MissingError

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
    with pytest.raises(AttributeError, match="nothing"):
        _ = vars(trtbuild)["__getattr__"]("nothing")


def test_the_page_lists_exactly_the_public_names():
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    types = PAGE.split("## Types")[1].split("## ")[0]
    listed += re.findall(r"`(\w+)`", types)
    assert sorted(listed) == sorted(trtbuild.__all__)


def public_modules():
    section = PAGE.split("## Public modules")[1].split("##")[0]
    return {"trtbuild", "calibrators", *re.findall(r"^\| `([\w.]+)`", section, flags=re.MULTILINE)}


def imported_by(source):
    """Name -> object of every import in a module, those for the type checker included."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}:{a.name}" for a in node.names}
    names = {}
    for name, place in found.items():
        module, _, attribute = place.partition(":")
        try:
            made = importlib.import_module(module)
            names[name] = getattr(made, attribute) if attribute else made
        except (ImportError, AttributeError, MissingError):
            names[name] = Any  # an optional package, or a name that imports one
    return names


def our_types(thing):
    """The project's classes in the annotations of a function or dataclass."""
    names = {}
    for one in inspect.getmro(thing)[:-1] if inspect.isclass(thing) else [thing]:
        module = inspect.getmodule(one)
        if module.__name__.startswith(("trtbuild", "calibrators")):
            names |= {**imported_by(inspect.getsource(module)), **vars(module)}
    waiting, found = list(get_type_hints(thing, names).values()), set()
    while waiting:
        hint = waiting.pop()
        if isinstance(hint, list):
            waiting += hint
        elif isinstance(hint, type) and is_ours(hint):
            found.add(hint)
        waiting += get_args(hint)
    return found


def parts_of(thing):
    """The parts of a public name with annotations: itself, and a class's public methods and properties."""
    if dataclasses.is_dataclass(thing) or inspect.isfunction(thing):
        yield thing
    if inspect.isclass(thing):
        members = (item for kind in inspect.getmro(thing) for item in vars(kind).items())
        for name, member in members:
            found = getattr(member, "fget", None) or getattr(member, "func", None)
            found = found or getattr(member, "__func__", member)
            if inspect.isfunction(found) and not name.startswith("_") and is_ours(found):
                yield found


def is_ours(thing):
    return thing.__module__.split(".")[0] in ("trtbuild", "calibrators")


def is_public(kind):
    package = importlib.import_module(kind.__module__.split(".")[0])
    return kind.__name__ in package.__all__ or listed_below(kind.__module__)


def listed_below(module):
    names = public_modules() - {"trtbuild", "calibrators"}
    return any(module == name or module.startswith(f"{name}.") for name in names)


def test_every_type_that_a_public_name_takes_or_gives_is_public():
    packages = (trtbuild, calibrators)
    waiting = [getattr(one, name) for one in packages for name in one.__all__]
    waiting = [one for one in waiting if inspect.isclass(one) or inspect.isfunction(one)]
    seen, hidden = set(), set()
    while waiting:
        thing = waiting.pop()
        if thing in seen:
            continue
        seen.add(thing)
        types = {kind for part in parts_of(thing) for kind in our_types(part)}
        hidden |= {f"{kind.__module__}.{kind.__name__}" for kind in types if not is_public(kind)}
        waiting += {kind for kind in types if not listed_below(kind.__module__)}
    assert len(seen) > 100
    assert not hidden


DOCUMENTS = sorted(
    path
    for pattern in ("samples/**/*.py", "samples/**/*.md", "docs/*.md", "README.md")
    for path in PROJECT.glob(pattern)
)


def test_documents_and_samples_import_public_names_only():
    line = re.compile(r"^\s*(?:from|import) ((?:trtbuild|calibrators)[\w.]*)", re.MULTILINE)
    found = [
        (path.relative_to(PROJECT).as_posix(), module)
        for path in DOCUMENTS
        for module in line.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(found) > 20
    hidden = [
        (path, module)
        for path, module in found
        if module not in ("trtbuild", "calibrators") and not listed_below(module)
    ]
    assert hidden == []


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    shutil.copytree(PROJECT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    has_torch = importlib.util.find_spec("torch") is not None
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    code = "\n".join(block for block in blocks if has_torch or "import torch" not in block)
    exec(compile(code, "docs/python-api.md", "exec"), {})  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "kept in float by --float 'Gemm'" in said
    assert (tmp_path / "out" / "digits.manifest.json").is_file()
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("name", ["trtbuild", "trtbuild.model", "trtbuild.migration"])
def test_no_public_name_is_that_of_a_file_beside_it(name):
    """Once imported, the module of that file would hide the lazily loaded name."""
    package = importlib.import_module(name)
    beside = {entry.stem for entry in Path(package.__file__).parent.iterdir()}
    assert not beside & set(package.__all__)
