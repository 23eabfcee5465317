"""TensorRT 10's calibrators: ``IInt8EntropyCalibrator2`` and its siblings, fed from this package.

TensorRT 11 has no calibrators and no base classes for them; so this module does not import TensorRT, and
makes a class when one is asked for. The code follows from what the bindings of 10.16 were seen to do: they
print and drop every exception of a callback and treat it as the end of the data, they crash on a missing
method or a generator, they do not notice a list that is too short, and the memory of a written cache is
freed after the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calibrators.errors import CacheError, MethodError, ObservationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibrators.feeder import BatchFeeder

__all__ = ["CALIBRATORS", "CalibrationRun", "make_calibrator"]

# Our name -> TensorRT's class, and the algorithm in the first line of its caches.
CALIBRATORS = {
    "entropy2": ("IInt8EntropyCalibrator2", "EntropyCalibration2"),
    "minmax": ("IInt8MinMaxCalibrator", "MinMaxCalibration"),
    "entropy": ("IInt8EntropyCalibrator", "EntropyCalibration"),
    "legacy": ("IInt8LegacyCalibrator", "LegacyCalibration"),
}


@dataclass
class CalibrationRun:
    """Data and cache of one calibration, what TensorRT requested, and the errors of the callbacks.

    Give it data, a cache, or both; call `finish` when the build has ended, even if it failed.

    Attributes:
        feeder: the data; None if there is only a cache.
        cache: the calibration cache offered to TensorRT, or None.
        written: the cache that TensorRT wrote; None until then.
        error: exception of a callback; it ends the data, and `finish` raises it again.
        was_asked_for_data: whether TensorRT asked for a batch, and so did not accept the cache.
    """

    feeder: BatchFeeder | None = None
    cache: bytes | None = None
    written: bytes | None = None
    error: BaseException | None = None
    was_asked_for_data: bool = False

    def next_batch(self, names: Sequence[str]) -> list[int] | None:
        """Return one device address per name, or None at the end and after an error. Never raises."""
        self.was_asked_for_data = True
        if self.error is not None or self.feeder is None:
            return None
        try:
            return self.feeder.next(names)
        except BaseException as error:  # noqa: BLE001  the bindings would print and forget it
            self.error = error
            return None

    def finish(self) -> bytes | None:
        """Check the run after the build; return the cache in effect: the written one, or the accepted one.

        If this raises, keep neither the plan nor the cache.

        Raises:
            BaseException: an exception of a callback, Ctrl-C included.
            CacheError: TensorRT did not accept the cache and there was no data.
            ObservationError: less data than one batch, or TensorRT stopped before the data ended.
        """
        if self.error is not None:
            raise self.error
        if not self.was_asked_for_data:
            return self.cache
        if self.feeder is None:
            raise CacheError(
                "TensorRT rejected the calibration cache and asked for data. The first line of the "
                "cache must name this TensorRT version and the calibrator."
            )
        if self.feeder.num_batches == 0:
            raise ObservationError(
                "there is less calibration data than one batch. Give more, or build with a smaller batch."
            )
        if self.feeder.has_more():
            raise ObservationError(
                f"TensorRT stopped calibrating after {self.feeder.num_batches} batches, before the data "
                "ended."
            )
        return self.written


def make_calibrator(tensorrt: Any, name: str, run: CalibrationRun) -> Any:
    """Make a calibrator of TensorRT's own type.

    Its batch size is 1: networks of TensorRT 10 have the batch in their shapes, and with dynamic shapes
    nothing else is allowed. The calibrator and the feeder must live until the build has ended.
    ``config.int8_calibrator`` keeps the calibrator alive, but nothing keeps the memory at the addresses.

    Args:
        tensorrt: the module ``tensorrt``, version 10.
        name: a key of `CALIBRATORS`.
        run: gives the data and records what happened.

    Raises:
        MethodError: no such calibrator, or this TensorRT has none.
    """
    if name not in CALIBRATORS:
        raise MethodError(f"there is no calibrator '{name}'; known are {', '.join(CALIBRATORS)}.")
    base = getattr(tensorrt, CALIBRATORS[name][0], None)
    if base is None:
        raise MethodError(
            f"TensorRT {tensorrt.__version__} has no {CALIBRATORS[name][0]}: TensorRT 10 is the last "
            "version with calibrators. Quantize the network explicitly (Q/DQ) instead."
        )

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()  # without it the bindings refuse the object

        def get_batch_size(self) -> int:
            """Return 1, as dynamic shapes require; a batch has as many rows as the profile's OPT shape."""
            return 1

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            """Return the device addresses of the next batch, in the order of `names`; None at the end."""
            return run.next_batch(names)

        def read_calibration_cache(self) -> bytes | None:
            """Return a cache to use instead of data; None asks TensorRT to calibrate."""
            return run.cache or None  # an empty text would count as a cache

        def write_calibration_cache(self, cache: Any) -> None:
            """Keep the cache that TensorRT made."""
            run.written = bytes(cache)  # a copy: TensorRT frees the memory

    Calibrator.__name__ = Calibrator.__qualname__ = f"Fed{CALIBRATORS[name][0].removeprefix('I')}"
    return Calibrator()
