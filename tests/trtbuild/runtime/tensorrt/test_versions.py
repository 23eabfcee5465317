"""Detection of an installed TensorRT."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from trtbuild.errors import MissingError
from trtbuild.runtime.tensorrt.versions import RTX, TENSORRT, installed, product_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    """Remove modules of a test's folder afterwards; `monkeypatch.delitem` would restore them."""
    before = dict(sys.modules)
    yield
    for name in ("tensorrt", *RTX.modules):
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


@pytest.mark.parametrize("content", [None, "", "__version__ = 'unknown'"])
def test_another_module_of_that_name_is_told_apart(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tensorrt"  # a folder of this name in the working directory
    folder.mkdir()
    if content is not None:
        (folder / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingError, match="is not NVIDIA's") as raised:
        installed()
    assert str(folder) in str(raised.value)


def test_a_folder_does_not_hide_the_other_name_of_a_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, other = RTX.modules
    (tmp_path / usual).mkdir()
    (tmp_path / f"{other}.py").write_text("__version__ = '1.7.1.1'")
    monkeypatch.syspath_prepend(tmp_path)
    for name in RTX.modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = installed(RTX)
    assert found.module.__name__ == other
    assert found.version == "1.7.1.1"


def head(tag: bytes, *version: int) -> bytes:
    """The first bytes of a plan."""
    return tag + bytes(20) + bytes(version) + tag + bytes(40)


@pytest.mark.parametrize(
    ("name", "content", "product"),
    [
        ("net.plan", head(b"vtrt", 1, 7, 1, 116), RTX),
        ("net.engine", head(b"ftrt", 1, 4, 0, 76), RTX),
        ("net.plan", head(b"ftrt", 10, 16, 1, 11), TENSORRT),
        ("net.plan", head(b"vtrt", 11, 4, 0, 106), TENSORRT),  # for the lean runtime
        ("net.rtx.plan", head(b"ftrt", 11, 4, 0, 106), TENSORRT),
        ("net.rtx.plan", b"\x00 unknown" + bytes(40), RTX),
        ("net.plan", b"\x00 unknown" + bytes(40), TENSORRT),
        ("net.rtx.plan", b"ftrt", RTX),  # truncated
        ("net.rtx.plan", None, RTX),  # missing
    ],
)
def test_a_plan_tells_which_product_wrote_it(
    name: str, content: bytes | None, product: object, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert product_of(tmp_path / name) is product
