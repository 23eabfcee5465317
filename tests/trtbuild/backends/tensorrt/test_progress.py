"""A build shows its progress, and stops when interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.base import BuildRequest
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.progress import interruptible
from trtbuild.options.tensorrt import Quantization, TensorRTOptions

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World


def shows(world: World) -> list[Any]:
    seen: list[Any] = []
    request = BuildRequest(
        networks.calibrated(),
        Path(),
        options=TensorRTOptions(quantization=Quantization.EXPLICIT),
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    TensorRTBackend().build(request)
    return seen


def test_phases_are_shown_with_their_steps(tensorrt: Server) -> None:
    seen = tensorrt.value(shows)
    assert seen[0] == ["build: Building engine", 0, 3]
    assert seen[-1] == ["build: Building engine", 3, 3]
    timing = [entry for entry in seen if entry[0] == "build: Timing"]
    assert [done for _, done, _ in timing][:3] == [0, 1, 2]
    assert timing[-1][1] == timing[-1][2]


def is_interrupted(world: World) -> list[str]:
    """Ctrl-C while TensorRT works: Python handles it in a callback of the bindings."""

    def interrupt(step: int) -> None:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    world.on_step = interrupt
    before = signal.getsignal(signal.SIGINT)  # background jobs start with it ignored
    request = networks.request(networks.calibrated(), None, quantization="explicit")
    try:
        TensorRTBackend().build(request)
    except KeyboardInterrupt:
        restored = signal.getsignal(signal.SIGINT) is before
        return [*sorted(path.name for path in Path().iterdir()), f"handler restored: {restored}"]
    return ["not interrupted"]


def test_ctrl_c_cancels_the_build(tensorrt: Server) -> None:
    answer = tensorrt.run(is_interrupted)
    assert answer.value == ["handler restored: True"]
    # The monitor stopped the build: no inspection followed.
    assert not answer.called("Runtime.deserialize_cuda_engine")


def test_sigterm_is_raised_when_the_build_has_ended() -> None:
    """For a program whose handler raises: an exception in a callback would be lost."""

    class Ended(BaseException):
        pass

    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not stop the clean-up
        raise Ended

    noted: list[BaseException | None] = []

    def build() -> None:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
            noted.append(interruption.cause)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Ended) as raised:
            build()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert noted == [raised.value]


def breaks(world: World) -> None:
    def fail(stage: str, done: int, total: int | None) -> None:
        raise ZeroDivisionError("a bug in what shows progress")

    request = BuildRequest(
        networks.calibrated(),
        Path(),
        options=TensorRTOptions(quantization=Quantization.EXPLICIT),
        progress=fail,
    )
    TensorRTBackend().build(request)


def test_an_error_in_the_display_is_not_swallowed(tensorrt: Server) -> None:
    error = tensorrt.run(breaks).error
    assert error is not None
    assert error["type"] == "ZeroDivisionError"
