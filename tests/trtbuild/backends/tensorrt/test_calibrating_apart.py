"""An implicit build in its own process: data is read here, and calibration runs there."""

from __future__ import annotations

import importlib.machinery
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.tensorrt_stub import worker
from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend, apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World


def builds_apart(world: World, reads: str = "all", **settings: Any) -> dict[str, Any]:
    """Build in another process; return the result, or raise with the names of the files left behind."""
    import tensorrt

    tensorrt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # type: ignore[attr-defined]
    apart._WORKER = worker.__name__
    os.environ[worker.FOLDER] = str(Path.cwd())
    data = networks.batches(4)

    def read() -> Iterator[dict[str, np.ndarray]]:
        yield from data[:2]
        if reads == "none":
            raise OSError("image 3 is damaged")
        yield from data[2:]
        if reads == "other":
            yield {"images": np.zeros((1, 3, 9, 8), np.float32)}

    request = networks.request(networks.calibrated(), [], **settings)
    try:
        engine = TensorRTBackend().build(replace(request, calibration_batches=read))
    except Exception as error:
        worker.LEFT.unlink(missing_ok=True)
        error.args = (f"{error} | left: {sorted(path.name for path in Path().iterdir())}",)
        raise
    left = json.loads(worker.LEFT.read_text())
    handed_over = [np.asarray(one["images"], np.float32) for one in left]
    return {
        "calibration": engine.details["calibration"],
        "as_given": bool(handed_over)
        and all(np.array_equal(a, b["images"]) for a, b in zip(handed_over, data, strict=True)),
        "cache": Path("net.cache").exists(),
    }


def test_batches_read_here_calibrate_there(tensorrt10: Server) -> None:
    answer = tensorrt10.run(builds_apart)
    assert answer.error is None, answer.error["trace"]
    assert answer.value["as_given"]
    assert answer.value["cache"]
    assert answer.value["calibration"]["ranges_from"] == "device"
    assert answer.value["calibration"]["batches"] == 4
    assert not answer.called("create.Builder")  # in this process


def test_ranges_of_the_host_go_over_as_a_cache(tensorrt10: Server) -> None:
    found = tensorrt10.value(builds_apart, ranges="host")
    assert found["calibration"]["ranges_from"] == "host"
    assert found["cache"]
    assert not found["as_given"]


def test_a_reader_that_fails_is_no_death_of_the_other_process(tensorrt10: Server) -> None:
    error = tensorrt10.run(builds_apart, reads="none").error
    assert error is not None
    assert error["type"] == "OSError"
    assert error["message"] == "image 3 is damaged | left: []"


def test_a_batch_that_does_not_fit_is_told_from_there(tensorrt10: Server) -> None:
    error = tensorrt10.run(builds_apart, reads="other").error
    assert error is not None
    assert error["type"] == "ObservationError"
    assert "calibration batch 4, input 'images'" in error["message"]
    assert "left: []" in error["message"]


def dies(world: World) -> dict[str, Any]:
    os.environ[worker.DIES] = "1"
    return builds_apart(world)


def test_a_library_that_dies_while_it_calibrates_is_one_sentence(tensorrt10: Server) -> None:
    error = tensorrt10.run(dies).error
    assert error is not None
    assert error["exit_code"] == 2
    assert "died while it built 'net' (SIGSEGV" in error["message"]
    assert "left: []" in error["message"]
