"""Requirements of every provider; the same functions run on the stand-in driver and on a GPU."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from trtbuild.runtime.cuda import open_device


def round_trip(world: Any, provider: str) -> dict[str, Any]:
    """Bytes go to the device and come back, in order on one stream."""
    rng = np.random.default_rng(7)
    with open_device(provider) as device:
        stream = device.stream()
        buffer = device.allocate(4 * 3 * 5 * 7)
        there, back = (device.pinned((3, 5, 7), np.float32) for _ in range(2))
        there.array[:] = rng.normal(size=(3, 5, 7))
        back.array[:] = 0
        wanted = there.array.copy()
        with device.active():
            device.copy_to_device(buffer, there.array, stream)
            device.copy_to_host(back.array, buffer, stream)
            device.synchronize(stream)
        return {
            "equal": bool((back.array == wanted).all()),
            "aligned": buffer.address % 256 == 0,
            "provider": device.provider,
        }


def upload(world: Any, provider: str) -> bool:
    """`upload` has finished when it returns: the source may be overwritten at once."""
    with open_device(provider) as device:
        buffer = device.allocate(64)
        source, back = device.pinned((16,), np.float32), device.pinned((16,), np.float32)
        source.array[:] = np.arange(16)
        device.upload(buffer, source.array)
        source.array[:] = -1
        stream = device.stream()
        with device.active():
            device.copy_to_host(back.array, buffer, stream)
            device.synchronize(stream)
        return bool((back.array == np.arange(16)).all())


def timing(world: Any, provider: str) -> list[float]:
    """Events around copies of 1 KiB and of 8 MiB."""
    elapsed = []
    with open_device(provider) as device:
        stream, start, stop = device.stream(), device.event(), device.event()
        for nbytes in (1 << 10, 1 << 23):
            buffer, source = device.allocate(nbytes), device.pinned((nbytes,), np.uint8)
            with device.active():
                device.record(start, stream)
                device.copy_to_device(buffer, source.array, stream)
                device.record(stop, stream)
                elapsed.append(device.elapsed_ms(start, stop))
    return elapsed


def graph(world: Any, provider: str) -> list[float]:
    """A captured copy runs once per launch, and not during the capture."""
    with open_device(provider) as device:
        stream = device.stream()
        buffer = device.allocate(4)
        there, back = device.pinned((1,), np.float32), device.pinned((1,), np.float32)
        seen = []
        with device.active():

            def copy() -> None:
                device.copy_to_device(buffer, there.array, stream)
                device.copy_to_host(back.array, buffer, stream)

            back.array[:] = -1
            captured = device.capture(stream, copy)
            device.synchronize(stream)
            seen.append(float(back.array[0]))
            for value in (3.0, 5.0):
                there.array[:] = value
                device.launch(captured, stream)
                device.synchronize(stream)
                seen.append(float(back.array[0]))
        return seen


def twice(world: Any, provider: str) -> bool:
    """Two devices in one thread, closed in the order of opening, and a third afterwards."""
    first, second = open_device(provider), open_device(provider)
    first.allocate(256)
    memory = second.allocate(256)
    first.close()
    first.close()
    source = second.pinned((256,), np.uint8)
    second.upload(memory, source.array)
    memory.free()
    memory.free()
    second.close()
    with open_device(provider) as third:
        third.upload(third.allocate(256), third.pinned((256,), np.uint8).array)
    return True


def from_a_thread(world: Any, provider: str) -> bool:
    """A device may be opened and used in a thread that is not the main one."""
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(round_trip(world, provider)))
    thread.start()
    thread.join()
    return bool(done[0]["equal"])
