"""Whether the installed TensorRT is one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from trtbuild.errors import MissingError
from trtbuild.runtime.tensorrt.versions import installed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("content", [None, "", "__version__ = 'unknown'"])
def test_another_module_of_that_name_is_told_apart(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tensorrt"  # as a user may have in the working directory
    folder.mkdir()
    if content is not None:
        (folder / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingError, match="is not NVIDIA's") as raised:
        installed()
    assert str(folder) in str(raised.value)
    monkeypatch.delitem(sys.modules, "tensorrt")
