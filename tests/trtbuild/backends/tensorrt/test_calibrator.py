"""Calibrations that fail: the files left behind, and the messages to the user."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tensorrt_stub.fixtures import Answer, Server
    from tests.tensorrt_stub.world import World


def _error(answer: Answer) -> dict[str, Any]:
    assert answer.error is not None, "the scenario ended well"
    return answer.error


def _build(batches: Any, batch: Any = 1, **settings: Any) -> list[str]:
    """Build with some batches; return the files, also of a failed build, through `Left`."""
    artifact = networks.calibrated(batch)
    request = networks.request(artifact, [], **settings)
    request = replace(request, calibration_batches=lambda: iter(batches))
    try:
        TensorRTBackend().build(request)
    except BaseException as error:
        error.args = (f"{error} | left: {sorted(path.name for path in Path().iterdir())}",)
        raise
    return sorted(path.name for path in Path().iterdir())


def fails_in_the_reader(world: World, kind: str) -> list[str]:
    def read() -> Iterator[dict[str, np.ndarray]]:
        yield from networks.batches(2)
        raise {"value": ValueError("image 3 is damaged"), "interrupt": KeyboardInterrupt("now")}[
            kind
        ]

    return _build(read())


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [("value", "ValueError", "image 3 is damaged"), ("interrupt", "KeyboardInterrupt", "now")],
)
def test_an_exception_ends_the_data_and_is_raised_after_the_build(
    tensorrt10: Server, kind: str, name: str, text: str
) -> None:
    """The bindings alone would print the error, build from two batches, and write their cache."""
    answer = tensorrt10.run(fails_in_the_reader, kind=kind)
    error = _error(answer)
    assert error["type"] == name
    assert error["message"] == f"{text} | left: []"
    # The build ran to its end: only the check afterwards prevents plan and cache.
    assert answer.called("Builder.build_serialized_network_to_stream")


def gives_a_bad_batch(world: World, bad: str) -> list[str]:
    first = networks.batches(1)[0]
    other: dict[str, dict[str, np.ndarray]] = {
        "shape": {"images": np.zeros((1, 3, 9, 8), np.float32)},
        "name": {"pictures": first["images"]},
        "rank": {"images": np.zeros((3, 8, 8), np.float32)},
    }
    return _build([first, other[bad]])


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("shape", "batch 1, input 'images': shape (1, 3, 9, 8) does not fit (1, 3, 8, 8)"),
        ("name", "calibration batch 1 has no array for the input 'images'"),
        ("rank", "shape (3, 8, 8) does not fit (1, 3, 8, 8)"),
    ],
)
def test_a_bad_batch_says_which_and_why(tensorrt10: Server, bad: str, text: str) -> None:
    error = _error(tensorrt10.run(gives_a_bad_batch, bad=bad))
    assert error["type"] == "ObservationError"
    assert text in error["message"]
    assert "left: []" in error["message"]


def has_too_little(world: World, rows: int) -> list[str]:
    return _build(networks.batches(1, rows) if rows else [], batch=4)


def test_less_than_a_batch_is_noticed_before_the_build(tensorrt10: Server) -> None:
    answer = tensorrt10.run(has_too_little, rows=3)
    assert (
        "the calibration data hold 3 samples, but the network takes 4" in _error(answer)["message"]
    )
    assert not answer.called("Builder.build_serialized_network_to_stream")


def test_no_data_is_noticed_before_the_build(tensorrt10: Server) -> None:
    answer = tensorrt10.run(has_too_little, rows=0)
    assert "there is no calibration data" in _error(answer)["message"]
    assert not answer.called("Builder.build_serialized_network_to_stream")


def stops_early(world: World) -> list[str]:
    world.early_end = 2
    return _build(networks.batches(5))


def test_tensorrt_drawing_less_than_there_is(tensorrt10: Server) -> None:
    error = _error(tensorrt10.run(stops_early))
    assert error["message"].startswith("TensorRT stopped calibrating after 2 batches")
    assert "left: []" in error["message"]


def uses_a_cache(world: World, text: str, **settings: Any) -> dict[str, Any]:
    Path("given.cache").write_text(text)
    artifact = networks.calibrated()
    data = networks.batches(2)
    built = TensorRTBackend().build(
        networks.request(artifact, data, cache="given.cache", **settings)
    )
    return {"details": dict(built.details), "cache": Path("net.cache").read_text()}


OURS = "TRT-101601-EntropyCalibration2\nimages: 3c010a14\n"


def test_a_cache_replaces_calibration(tensorrt10: Server) -> None:
    answer = tensorrt10.run(uses_a_cache, text=OURS)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["details"]["calibration"]["ranges_from"] == "given.cache"
    assert answer.value["cache"] == OURS
    assert answer.called("calibrator.cache") == [[OURS]]


@pytest.mark.parametrize(
    "header", ["TRT-100300-EntropyCalibration2", "TRT-101601-MinMaxCalibration"]
)
def test_a_foreign_cache_is_noticed_before_the_build(tensorrt10: Server, header: str) -> None:
    answer = tensorrt10.run(uses_a_cache, text=f"{header}\nimages: 3c010a14\n")
    error = _error(answer)
    assert f"begins with '{header}', but this TensorRT reads 'TRT-101601-" in error["message"]
    assert "--accept-foreign-cache" in error["message"]
    assert not answer.called("Builder.build_serialized_network_to_stream")


def test_a_foreign_cache_can_be_accepted(tensorrt10: Server) -> None:
    text = "TRT-8601-EntropyCalibration2\nimages: 3c010a14\n"
    answer = tensorrt10.run(uses_a_cache, text=text, accept_foreign_cache=True)
    assert answer.called("calibrator.cache") == [[OURS]]


@pytest.mark.parametrize(
    "text", ["", "not a cache\n", "TRT-101601-EntropyCalibration2\nimages 3c\n"]
)
def test_a_damaged_cache_is_noticed_before_the_build(tensorrt10: Server, text: str) -> None:
    answer = tensorrt10.run(uses_a_cache, text=text)
    assert _error(answer)["type"] == "InputError"
    assert not answer.called("Builder.build_serialized_network_to_stream")


def is_passed_over(world: World) -> list[str]:
    """A library with another version number ignores our cache."""
    world.number = 101602
    return _build([], ranges="host")


def test_a_cache_that_tensorrt_passes_over_is_noticed(tensorrt10: Server) -> None:
    error = _error(tensorrt10.run(is_passed_over))
    assert "TensorRT rejected the calibration cache and asked for data" in error["message"]
    assert "left: []" in error["message"]


def takes_less_memory_than_it_reads(world: World) -> dict[str, int]:
    """Device and pinned allocations while 50 batches pass, and afterwards."""
    library = ctypes.CDLL("libcuda.so.1")
    most = {"device": 0, "host": 0}

    def watched() -> Iterator[dict[str, np.ndarray]]:
        for feeds in networks.batches(50):
            most["device"] = max(most["device"], library.standin_live(1))
            most["host"] = max(most["host"], library.standin_live(0))
            yield feeds

    _build(watched())
    left = {"left": library.standin_live(1) + library.standin_live(0)}
    return {**most, **left, "contexts": library.standin_contexts_retained()}


def test_one_device_buffer_and_two_pinned_ones_for_an_input(tensorrt10: Server) -> None:
    """No buffer is left after the build."""
    used = tensorrt10.value(takes_less_memory_than_it_reads)
    assert used == {"device": 1, "host": 2, "left": 0, "contexts": 0}


def reads_ahead(world: World) -> list[int]:
    """How many batches were read each time that TensorRT got a batch."""
    read: list[int] = []
    given: list[int] = []

    def counted() -> Iterator[dict[str, np.ndarray]]:
        for number, feeds in enumerate(networks.batches(6)):
            read.append(number)
            yield feeds

    from calibrators.feeder import BatchFeeder, InputForm
    from trtbuild.runtime.cuda import open_device

    form = InputForm((1, 3, 8, 8), np.dtype(np.float32))
    with open_device() as device, BatchFeeder(counted(), {"images": form}, device) as feeder:
        while feeder.next(["images"]):
            while len(read) < min(6, feeder.num_batches + 2):
                pass  # the thread fills both slots without a request
            given.append(len(read))
    return given


def test_the_next_batch_is_staged_while_tensorrt_works(tensorrt10: Server) -> None:
    ahead = tensorrt10.value(reads_ahead)
    assert all(
        min(6, number + 2) <= count <= min(6, number + 3) for number, count in enumerate(ahead, 1)
    )


def closes_in_the_middle(world: World) -> list[int]:
    """A reader that never ends does not keep `close` waiting."""
    from itertools import count

    from calibrators.feeder import BatchFeeder, InputForm
    from trtbuild.runtime.cuda import open_device

    form = InputForm((1, 3, 8, 8), np.dtype(np.float32))
    endless = (networks.batches(1)[0] for _ in count())
    with open_device() as device, BatchFeeder(endless, {"images": form}, device) as feeder:
        assert feeder.next(["images"])
        with pytest.raises(Exception, match="no calibration data for the input 'masks'"):
            feeder.next(["masks"])
    library = ctypes.CDLL("libcuda.so.1")
    return [library.standin_live(1), library.standin_live(0)]


def test_closing_in_the_middle_gives_everything_back(tensorrt10: Server) -> None:
    assert tensorrt10.value(closes_in_the_middle) == [0, 0]


def asks_11_for_a_calibrator(world: World) -> None:
    import tensorrt

    from calibrators.tensorrt import CalibrationRun, make_calibrator

    make_calibrator(tensorrt, "entropy2", CalibrationRun())


def test_11_has_no_calibrators(tensorrt11: Server) -> None:
    error = _error(tensorrt11.run(asks_11_for_a_calibrator))
    assert error["type"] == "MethodError"
    assert "TensorRT 11.4.0.106 has no IInt8EntropyCalibrator2" in error["message"]
