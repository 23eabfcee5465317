"""TensorRT 10's calibrators: ``IInt8EntropyCalibrator2`` and its siblings, fed from this package.

TensorRT 11 has no calibrators, and the base classes are missing there; so nothing of TensorRT is imported
here, and the classes are made when one is asked for. What the bindings do with a misbehaving calibrator was
measured on 10.16 and decides the shape of this file: they print and forget every exception of a callback
and take it for the end of the data, they crash on a missing method or a generator, they do not notice a
short list, and the memory of a written cache is gone after the call.
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
    """What TensorRT asked its calibrator, and what went wrong meanwhile.

    Give it data, a cache, or both; call `finish` when the build has ended, whatever it answered.

    Attributes:
        feeder: the data; None when a cache must do.
        cache: text that is offered as calibration cache; None for none.
        written: the cache that TensorRT wrote; None until then.
        error: what a callback raised; it ends the data, and `finish` raises it again.
        was_asked_for_data: whether TensorRT wanted a batch, so did not take the cache.
    """

    feeder: BatchFeeder | None = None
    cache: bytes | None = None
    written: bytes | None = None
    error: BaseException | None = None
    was_asked_for_data: bool = False

    def next_batch(self, names: Sequence[str]) -> list[int] | None:
        """Return one device address a name, or None at the end and after an error. Never raises."""
        self.was_asked_for_data = True
        if self.error is not None or self.feeder is None:
            return None
        try:
            return self.feeder.next(names)
        except BaseException as error:  # noqa: BLE001  the bindings would print and forget it
            self.error = error
            return None

    def finish(self) -> bytes | None:
        """Check the run after the build and answer the cache that holds: written, or offered and taken.

        Neither the plan nor the cache of a run that raises here may be kept.

        Raises:
            BaseException: what a callback raised, Ctrl-C included.
            CacheError: TensorRT did not take the cache and there was no data.
            ObservationError: TensorRT stopped before the data ended.
        """
        if self.error is not None:
            raise self.error
        if not self.was_asked_for_data:
            return self.cache
        if self.feeder is None:
            raise CacheError(
                "TensorRT did not take the calibration cache and asked for data. The first line of the "
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

    The batch size that it answers is 1: networks of TensorRT 10 carry their batch in their shape, and with
    dynamic shapes nothing else is allowed. The calibrator and the feeder must live until the build has ended;
    ``config.int8_calibrator`` keeps the calibrator alive and nobody keeps the memory behind the addresses.

    Args:
        tensorrt: the module ``tensorrt``, version 10.
        name: a key of `CALIBRATORS`.
        run: what it is fed from and where it tells what happened.

    Raises:
        MethodError: no such calibrator, or this TensorRT has none.
    """
    if name not in CALIBRATORS:
        raise MethodError(f"there is no calibrator '{name}'; known are {', '.join(CALIBRATORS)}.")
    base = getattr(tensorrt, CALIBRATORS[name][0], None)
    if base is None:
        raise MethodError(
            f"TensorRT {tensorrt.__version__} has no {CALIBRATORS[name][0]}: calibrators ended with "
            "TensorRT 10. Quantize the network explicitly (Q/DQ) instead."
        )

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()  # without it the bindings refuse the object

        def get_batch_size(self) -> int:
            """Return 1, as networks with dynamic shapes need: a batch has the rows of the profile's OPT."""
            return 1

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            """Return the next batch's device addresses, in the order of `names`; None behind the last."""
            return run.next_batch(names)

        def read_calibration_cache(self) -> bytes | None:
            """Return the cache that takes the place of batches; None asks TensorRT to calibrate."""
            return run.cache or None  # an empty text would count as a cache

        def write_calibration_cache(self, cache: Any) -> None:
            """Keep the cache that TensorRT made."""
            run.written = bytes(cache)  # a copy: the memory is TensorRT's and goes away

    Calibrator.__name__ = Calibrator.__qualname__ = f"Fed{CALIBRATORS[name][0].removeprefix('I')}"
    return Calibrator()
