"""Batches on their way to a device, here plain memory: rows, order, errors, and freed memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrators import CalibratorError
from calibrators.feeder import BatchFeeder, InputForm
from calibrators.tensorrt import CalibrationRun, make_calibrator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Memory:
    """Device memory as arrays; it counts allocations not freed, and records the threads that use it."""

    held: dict[int, np.ndarray] = field(default_factory=dict)
    pins: int = 0
    threads: set[int] = field(default_factory=set)

    def allocate(self, nbytes: int) -> Any:
        self.threads.add(threading.get_ident())
        address = 4096 * (len(self.held) + 1)
        self.held[address] = np.zeros(nbytes, np.uint8)
        return _Thing(address=address, free=lambda: self.held.pop(address))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.pins += 1

        def free() -> None:
            self.pins -= 1

        return _Thing(array=np.empty(shape, dtype), free=free)

    def upload(self, buffer: Any, array: np.ndarray) -> None:
        self.threads.add(threading.get_ident())
        self.held[buffer.address][:] = array.reshape(-1).view(np.uint8)

    def read(self, address: int, form: InputForm) -> np.ndarray:
        return self.held[address].view(form.dtype).reshape(form.shape).copy()


@dataclass
class _Thing:
    free: Callable[[], Any]
    address: int = 0
    array: Any = None


def _form(*shape: int, dtype: Any = np.float32) -> InputForm:
    return InputForm(shape, np.dtype(dtype))


@given(st.lists(st.integers(0, 7), max_size=8), st.integers(1, 5))
@settings(max_examples=60)
def test_every_row_arrives_once_in_order(parts: list[int], size: int) -> None:
    """For batches of any size, with empty ones among them."""
    rows = np.arange(sum(parts) * 2, dtype=np.float32).reshape(-1, 2)
    starts = np.cumsum([0, *parts])
    batches = [{"x": rows[a:b]} for a, b in pairwise(starts)]
    memory, form = Memory(), _form(size, 2)
    seen = []
    with BatchFeeder(batches, {"x": form}, memory) as feeder:
        while (addresses := feeder.next(["x"])) is not None:
            assert len(addresses) == 1
            seen.append(memory.read(addresses[0], form))
        assert feeder.is_exhausted
        assert feeder.next(["x"]) is None
    whole = len(rows) // size * size
    assert np.array_equal(np.concatenate(seen) if seen else rows[:0], rows[:whole])
    assert feeder.num_batches == len(rows) // size
    assert feeder.num_samples_left_out == len(rows) - whole
    assert not memory.held
    assert memory.pins == 0
    assert memory.threads <= {threading.get_ident()}  # the thread that reads touches no device


def test_inputs_keep_together_and_addresses_follow_the_names() -> None:
    batches = [
        {"a": np.full((3, 1), i, np.float64), "b": np.full((3, 2), 10 + i)} for i in range(4)
    ]
    memory = Memory()
    forms = {"a": _form(2, 1), "b": _form(2, 2, dtype=np.int64)}
    with BatchFeeder(batches, forms, memory) as feeder:
        for names in (["a", "b"], ["b", "a"]) * 3:
            addresses = feeder.next(names)
            assert addresses is not None
            read = {name: memory.read(at, forms[name]) for name, at in zip(names, addresses)}
            assert np.array_equal(read["a"][:, 0] + 10, read["b"][:, 0])
            assert read["a"].dtype == np.float32


def test_batches_without_a_common_axis_are_passed_whole_or_refused() -> None:
    forms = {"x": _form(2, 1), "scale": _form()}
    whole = {"x": np.ones((2, 1)), "scale": np.float32(3)}
    memory = Memory()
    with BatchFeeder([whole, whole], forms, memory) as feeder:
        addresses = feeder.next(["scale"])
        assert addresses is not None
        assert memory.read(addresses[0], forms["scale"]) == 3
    ragged = {"x": np.ones((3, 1)), "scale": np.float32(3)}
    for other in (forms, {"x": _form(2, 1), "scale": _form(1)}):
        given = ragged | {"scale": np.ones(other["scale"].shape)}
        with (
            BatchFeeder([given], other, Memory()) as feeder,
            pytest.raises(CalibratorError, match="share no batch axis"),
        ):
            feeder.next(["x"])


@pytest.mark.parametrize("rows", [1, 4])
def test_a_number_in_place_of_a_row_of_numbers_is_refused(rows: int) -> None:
    with (
        BatchFeeder([{"x": np.float32(3)}], {"x": _form(rows)}, Memory()) as feeder,
        pytest.raises(CalibratorError, match=r"input 'x': shape \(\) does not fit"),
    ):
        feeder.next(["x"])


def test_a_batch_with_more_rows_of_one_input_is_refused() -> None:
    """Cut into batches of the network, its rows would meet those of other samples."""
    forms = {"a": _form(2, 1), "b": _form(2, 1)}
    batches = [
        {"a": np.ones((3, 1)), "b": np.ones((2, 1))},
        {"a": np.ones((1, 1)), "b": np.ones((2, 1))},
    ]
    message = "batch 0 has 3 rows of input 'a' and 2 of 'b'"
    with (
        BatchFeeder(batches, forms, Memory()) as feeder,
        pytest.raises(CalibratorError, match=message),
    ):
        feeder.next(["a", "b"])


def test_has_more_consumes_no_batch() -> None:
    with BatchFeeder([{"x": np.ones((1, 1))}], {"x": _form(1, 1)}, Memory()) as feeder:
        assert feeder.has_more()
        assert feeder.has_more()
        assert feeder.num_batches == 0
        assert feeder.next(["x"])
        assert not feeder.has_more()


def _fails() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": np.ones((1, 1))}
    raise OSError("the disk is gone")


def test_an_error_of_the_reader_is_raised_after_its_batches() -> None:
    memory = Memory()
    with BatchFeeder(_fails(), {"x": _form(1, 1)}, memory) as feeder:
        assert feeder.next(["x"])
        with pytest.raises(OSError, match="the disk is gone"):
            feeder.next(["x"])
        with pytest.raises(OSError, match="the disk is gone"):
            feeder.has_more()
    assert not memory.held


def test_closing_stops_an_endless_reader() -> None:
    before = set(threading.enumerate())
    feeder = BatchFeeder(({"x": np.ones((1, 1))} for _ in count()), {"x": _form(1, 1)}, Memory())
    feeder.close()
    feeder.close()
    assert set(threading.enumerate()) <= before


def test_a_run_keeps_an_error_and_raises_it_at_the_end() -> None:
    with BatchFeeder(_fails(), {"x": _form(1, 1)}, Memory()) as feeder:
        run = CalibrationRun(feeder)
        assert run.next_batch(["x"])
        assert run.next_batch(["x"]) is None
        assert run.next_batch(["x"]) is None
        with pytest.raises(OSError, match="the disk is gone"):
            run.finish()


def test_a_run_with_only_a_cache_succeeds_if_tensorrt_takes_it() -> None:
    taken = CalibrationRun(cache=b"TRT-101601-EntropyCalibration2\n")
    assert taken.finish() == taken.cache
    ignored = CalibrationRun(cache=b"TRT-8601-EntropyCalibration2\n")
    assert ignored.next_batch(["x"]) is None
    with pytest.raises(CalibratorError, match="rejected the calibration cache"):
        ignored.finish()


def test_unknown_calibrators_are_named() -> None:
    with pytest.raises(CalibratorError, match="known are entropy2, minmax, entropy, legacy"):
        make_calibrator(None, "kl", CalibrationRun())
