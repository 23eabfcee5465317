"""The runtime cache's file, with fakes of TensorRT for RTX's objects, which need a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trtbuild.errors import InputError
from trtbuild.runtime.tensorrt.logger import Log
from trtbuild.runtime.tensorrt.runtime_cache import RuntimeCache

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.runtime.tensorrt.versions import TensorRT


class Cache:
    content = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels"):
            return False
        self.content = blob
        return True

    def serialize(self) -> bytes:
        return self.content


class Config:
    def __init__(self) -> None:
        self.cache: Cache | None = None

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Engine:
    def create_runtime_config(self) -> Config:
        return Config()

    def create_execution_context(self, config: Config) -> Config:
        config.cache.content = config.cache.content or b"kernels of this GPU"
        return config


def test_what_is_compiled_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "net.runtime"
    first = RuntimeCache(Engine(), path, Log())
    assert first.make_context(Engine()).cache is not None
    first.save()
    assert path.read_bytes() == b"kernels of this GPU"
    path.write_bytes(b"kernels of a longer run")
    second = RuntimeCache(Engine(), path, Log())
    assert second.make_context(Engine()).cache.content == b"kernels of a longer run"
    path.unlink()
    second.save()  # nothing was compiled since
    assert not path.exists()


def test_a_file_that_is_refused_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"not a cache")
    with pytest.raises(InputError, match=r"notes\.txt' cannot be used here"):
        RuntimeCache(Engine(), path, Log())
    assert path.read_bytes() == b"not a cache"


def test_the_real_library_has_these_names(rtx: TensorRT) -> None:
    module: Any = rtx.module
    for kind, stands_in in (("IRuntimeCache", Cache), ("IRuntimeConfig", Config)):
        ours = {name for name in vars(stands_in) if not name.startswith("_")} - {"content"}
        assert ours <= set(dir(getattr(module, kind)))
    assert {"create_runtime_config", "create_execution_context"} <= set(dir(module.ICudaEngine))
