"""The timing cache through the real bindings: made, reused, merged, pinned, refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.damage import damaged
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.errors import InputError
from trtbuild.files import file_digest

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.world import World

CACHE = Path("timing.cache")


def _build(**settings: Any) -> dict[str, Any]:
    request = networks.request(networks.calibrated(), None, quantization="explicit", **settings)
    return dict(TensorRTBackend().build(request).details["timing_cache"])


def _entries() -> dict[str, float]:
    entries: dict[str, float] = json.loads(CACHE.read_bytes()[6:])["entries"]
    return entries


def builds_twice(world: World) -> list[Any]:
    """The second build finds everything in the cache, so its file does not change."""
    first = _build(timing_cache=str(CACHE))
    second = _build(timing_cache=str(CACHE))
    return [first, second, len(_entries())]


def test_a_cache_is_written_and_used_again(tensorrt: Server) -> None:
    first, second, entries = tensorrt.value(builds_twice)
    assert first == second
    assert first["digest"].startswith("sha256:")
    assert entries > 10


def merges(world: World) -> dict[str, float]:
    """Another build writes its entries while this one runs: the entries of both stay."""
    _build(timing_cache=str(CACHE))
    other = CACHE.read_bytes()
    stored = json.loads(other[6:])
    stored["entries"] = {"of another build": 1.5}
    CACHE.unlink()

    def write(step: int) -> None:
        CACHE.write_bytes(b"TIMING" + json.dumps(stored).encode())

    world.on_step = write
    _build(timing_cache=str(CACHE))
    return _entries()


def test_entries_of_a_build_beside_this_one_stay(tensorrt: Server) -> None:
    entries = tensorrt.value(merges)
    assert entries["of another build"] == 1.5
    assert len(entries) > 10


def is_pinned(world: World, spoil: str = "") -> dict[str, Any]:
    _build(timing_cache=str(CACHE))
    digest = file_digest(CACHE)
    if spoil == "entries":
        stored = json.loads(CACHE.read_bytes()[6:])
        stored["entries"].popitem()
        CACHE.write_bytes(b"TIMING" + json.dumps(stored).encode())
        digest = file_digest(CACHE)
    elif spoil == "file":
        CACHE.write_bytes(CACHE.read_bytes() + b" ")
    elif spoil == "absent":
        CACHE.unlink()
    before = CACHE.read_bytes() if CACHE.exists() else b""
    record = _build(timing_cache=str(CACHE), lock=digest)
    return {**record, "unchanged": CACHE.read_bytes() == before}


def test_a_pinned_cache_is_used_and_left_alone(tensorrt: Server) -> None:
    answer = tensorrt.run(is_pinned)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["locked"]
    assert answer.value["unchanged"]
    miss = 16 if tensorrt.major == 10 else 15  # ERROR_ON_TIMING_CACHE_MISS moved
    assert [miss] in answer.called("IBuilderConfig.set_flag")


def test_a_miss_in_a_pinned_cache_fails(tensorrt: Server) -> None:
    assert "timing cache miss" in _error(tensorrt.run(is_pinned, spoil="entries"))["message"]


def test_another_file_than_the_pinned_one_fails_before_the_build(tensorrt: Server) -> None:
    message = _error(tensorrt.run(is_pinned, spoil="file"))["message"]
    assert "has the digest sha256:" in message
    assert "--lock requires sha256:" in message
    assert "does not exist" in _error(tensorrt.run(is_pinned, spoil="absent"))["message"]


def is_foreign(world: World, content: str) -> list[Any]:
    CACHE.write_text(content)
    try:
        _build(timing_cache=str(CACHE))
    except InputError as error:
        return [str(error), CACHE.read_text() == content]
    return []


def test_a_foreign_or_damaged_cache_is_refused_with_the_reason(tensorrt: Server) -> None:
    other = 'TIMING{"version": 80601, "entries": {}}'
    damaged = "Failed to deserialize timing cache"
    for content, reason in ((other, "of another version"), ("garbage", damaged)):
        answer = tensorrt.run(is_foreign, content=content)
        message, unchanged = answer.value
        assert reason in message
        assert unchanged
        assert not answer.called("Builder.build_serialized_network_to_stream")


def is_spoilt_meanwhile(world: World) -> list[Any]:
    """While the build runs, another program replaces the cache by a file of another kind."""
    world.on_step = lambda step: CACHE.write_text("garbage")
    return [_build(timing_cache=str(CACHE)), CACHE.read_text()]


def test_a_file_of_another_kind_written_meanwhile_is_kept(tensorrt: Server) -> None:
    assert tensorrt.value(is_spoilt_meanwhile) == [{}, "garbage"]


def _error(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None, "the scenario ended well"
    return answer.error


def is_damaged(world: World, count: int) -> list[str]:
    """Build with many damaged caches; return all results other than read or refused."""
    _build(timing_cache=str(CACHE))
    whole, found = CACHE.read_bytes(), []
    for seed in range(count):
        content = damaged(whole, random.Random(f"timing {seed}"))  # noqa: S311 - the same in every run
        CACHE.write_bytes(content)
        try:
            _build(timing_cache=str(CACHE))
        except InputError:
            if CACHE.read_bytes() != content:
                found.append(f"seed {seed}: refused, and written over")
        except Exception as error:  # noqa: BLE001 - what nothing should raise
            found.append(f"seed {seed}: {type(error).__name__}: {error}")
    return found


@pytest.mark.nightly
def test_damaged_caches_are_refused_or_read(tensorrt: Server) -> None:
    answer = tensorrt.run(is_damaged, count=200)
    assert answer.error is None, answer.error["trace"]
    assert answer.value == []
