"""The real cuda-python and the real pycuda over a driver whose device memory is host memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import pytest

from tests.trtbuild.runtime.cuda import scenarios
from trtbuild.runtime.cuda import cuda_driver, open_device

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server


def test_bytes_come_back(driver: Server, provider: str) -> None:
    answer = driver.value(scenarios.round_trip, provider=provider)
    assert answer == {"equal": True, "aligned": True, "provider": provider}


def test_upload_waits(driver: Server, provider: str) -> None:
    # The stand-in copies when it synchronizes: without that, the -1 written afterwards would arrive.
    assert driver.value(scenarios.upload, provider=provider)


def test_events_measure(driver: Server, provider: str) -> None:
    small, large = driver.value(scenarios.timing, provider=provider)
    assert 0 <= small < large


def test_graph_runs_once_a_launch(driver: Server) -> None:
    assert driver.value(scenarios.graph, provider="cuda-python") == [-1.0, 3.0, 5.0]


def test_pycuda_says_that_it_has_no_graphs(driver: Server) -> None:
    from tests.tensorrt_stub import fixtures

    fixtures.build_pycuda()
    error = driver.run(scenarios.graph, provider="pycuda").error
    assert error is not None
    assert error["message"] == "pycuda cannot capture CUDA graphs. Use --cuda cuda-python."


def test_two_devices_for_one_gpu(driver: Server, provider: str) -> None:
    assert driver.value(scenarios.twice, provider=provider)


def test_works_in_a_thread(driver: Server, provider: str) -> None:
    assert driver.value(scenarios.from_a_thread, provider=provider)


def leaks(world: Any, provider: str) -> dict[str, int]:
    """Allocations left after a device was closed, also after an error and during a capture."""
    library = ctypes.CDLL("libcuda.so.1")

    def left() -> dict[str, int]:
        names = ("live_streams", "live_events", "live_graphs", "contexts_retained", "context_depth")
        found = {name: getattr(library, f"standin_{name}")() for name in names}
        return found | {"device": library.standin_live(1), "host": library.standin_live(0)}

    scenarios.round_trip(world, provider)
    scenarios.timing(world, provider)
    if provider == "cuda-python":
        scenarios.graph(world, provider)
    with pytest.raises(ValueError, match="a bug of the caller"):
        _fails_in_the_middle(provider)
    return left()


def _fails_in_the_middle(provider: str) -> None:
    with open_device(provider) as device:
        device.allocate(1 << 20)
        with device.active():
            raise ValueError("a bug of the caller")


def test_nothing_is_left(driver: Server, provider: str) -> None:
    assert set(driver.value(leaks, provider=provider).values()) == {0}


def keeps_the_current_context(world: Any, provider: str) -> list[int]:
    """How deep the thread's stack of contexts is: outside, inside `active`, outside again."""
    library = ctypes.CDLL("libcuda.so.1")
    depth = [library.standin_context_depth()]
    with open_device(provider) as device:
        depth.append(library.standin_context_depth())
        with device.active():
            depth.append(library.standin_context_depth())
        depth.append(library.standin_context_depth())
    return [*depth, library.standin_context_depth()]


def test_the_current_context_is_put_back(driver: Server, provider: str) -> None:
    assert driver.value(keeps_the_current_context, provider=provider) == [0, 0, 1, 0, 0]


def runs_out_of_memory(world: Any, provider: str) -> None:
    library = ctypes.CDLL("libcuda.so.1")
    with open_device(provider) as device:
        library.standin_fail(b"cuMemAlloc", 2)
        device.allocate(4096)


def test_out_of_memory_says_how_much_was_wanted(driver: Server, provider: str) -> None:
    error = driver.run(runs_out_of_memory, provider=provider).error
    assert error is not None
    assert "4096 bytes of device memory" in error["message"]
    assert "out of memory" in error["message"]
    assert error["exit_code"] == 3


def opens(world: Any, devices: int, provider: str = "auto", index: int = 0) -> str:
    ctypes.CDLL("libcuda.so.1").standin_set_devices(devices)
    with open_device(provider, index) as device:
        return device.provider


def test_no_gpu(driver: Server) -> None:
    error = driver.run(opens, devices=0).error
    assert error is not None
    assert error["message"].startswith("no GPU can be used: the CUDA driver sees no GPU.")
    assert "CUDA_VISIBLE_DEVICES" in error["message"]


def test_a_gpu_that_is_not_there(driver: Server) -> None:
    error = driver.run(opens, devices=2, index=2).error
    assert error is not None
    assert error["message"] == "there is no GPU 2: this machine has 2, counted from 0."


def test_an_unknown_provider(driver: Server) -> None:
    error = driver.run(opens, devices=1, provider="cupy").error
    assert error is not None
    assert error["exit_code"] == 2
    assert "auto, cuda-python, pycuda, torch" in error["message"]


def test_auto_prefers_cuda_python(driver: Server) -> None:
    assert driver.value(opens, devices=1) == "cuda-python"


def asks_the_driver(world: Any) -> list[Any]:
    driver = cuda_driver()
    return [driver.version, [(g.name, g.compute_capability, g.memory_bytes) for g in driver.gpus]]


def test_the_driver_is_asked_without_a_package(driver: Server) -> None:
    assert driver.value(asks_the_driver) == ["13.0", [["Stand-in GPU 0", "8.9", 8 << 30]]]


def test_a_machine_without_a_driver_gets_a_sentence() -> None:
    driver = cuda_driver()
    if driver.version:
        pytest.skip("this machine has a CUDA driver")
    assert "is not here" in driver.problem
    assert driver.remedy
