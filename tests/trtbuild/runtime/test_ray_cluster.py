"""Joining and leaving a Ray cluster."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from trtbuild.errors import MissingError
from trtbuild.runtime.ray_cluster import joined, staying_joined


def installed(monkeypatch: pytest.MonkeyPatch, ray: SimpleNamespace) -> None:
    """Let `ray` be what is imported as Ray."""
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util", SimpleNamespace())


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The calls to a fake Ray."""
    made: list[str] = []
    ray = SimpleNamespace(
        is_initialized=lambda: made.count("init") > made.count("shutdown"),
        init=lambda **_: made.append("init"),
        shutdown=lambda: made.append("shutdown"),
    )
    installed(monkeypatch, ray)
    return made


def test_a_cluster_is_left_behind_its_block(calls) -> None:
    for _ in range(2):
        with joined(None):
            assert calls[-1] == "init"
    assert calls == ["init", "shutdown", "init", "shutdown"]


def test_steps_of_one_build_share_a_cluster(calls) -> None:
    with staying_joined(""):
        for _ in range(2):
            with joined(None):
                pass
            assert "shutdown" not in calls
    assert calls == ["init", "shutdown"]


def test_no_cluster_is_joined_where_none_was_asked_for(calls) -> None:
    with staying_joined(None):
        pass
    assert calls == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "no Ray cluster can be started here"),
        ("auto", "the Ray cluster 'auto' cannot be reached"),
    ],
)
def test_a_cluster_that_does_not_start_in_time_is_no_bug_of_ours(
    monkeypatch, address, said
) -> None:
    """Ray raises a plain Exception then."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # noqa: TRY002

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    installed(monkeypatch, ray)
    with pytest.raises(MissingError, match=f"{said}: The current node timed out"), joined(address):
        pass
