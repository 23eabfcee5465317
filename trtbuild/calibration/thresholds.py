"""Reads thresholds from a file: our calibration, TensorRT's cache or ONNX Runtime's table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calibrators import (
    METHODS,
    Calibration,
    CalibrationCache,
    read_onnxruntime_table,
)
from trtbuild.errors import InputError, decoding, in_one_tree
from trtbuild.files import content_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators import Histogram

__all__ = ["Thresholds", "cache_from", "read_pair", "read_thresholds"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thresholds:
    """One side of a comparison.

    Attributes:
        name: the path, or the method's name.
        kind: kind of the file, in words.
        amaxes: tensor name -> threshold.
        calibration: the calibration, if the file is one of ours.
    """

    name: str
    kind: str
    amaxes: Mapping[str, float]
    calibration: Calibration | None = None

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Histograms by tensor; empty if the file has none."""
        return (self.calibration.histograms or {}) if self.calibration is not None else {}


def read_thresholds(path: Path) -> Thresholds:
    """Read a file of thresholds; the content tells which of the three kinds it is.

    Raises:
        InputError: it cannot be read, or is none of the three.
    """
    with decoding(InputError, f"cannot read '{path}'"):
        content = content_of(path)
    with in_one_tree(f"'{path}' is not a calibration file, TensorRT cache or ONNX Runtime table: "):
        if content.lstrip().startswith(b"{"):
            calibration = Calibration.from_bytes(content)
            amaxes = {name: found.amax for name, found in calibration.ranges.items()}
            return Thresholds(str(path), f"calibration, {calibration.method}", amaxes, calibration)
        if b": " in content.partition(b"\n")[2]:  # names of ONNX Runtime's table may hold a colon
            cache = cache_from(content, path)
            return Thresholds(str(path), f"TensorRT cache, {cache.header}", cache.amaxes)
        return Thresholds(str(path), "ONNX Runtime table", read_onnxruntime_table(content))


def cache_from(content: bytes, path: Path) -> CalibrationCache:
    """Return the TensorRT cache in `content`, read from the file `path`; warn of implausible scales.

    Raises:
        CacheError: it is not a cache, or none of its scales is plausible.
    """
    cache = CalibrationCache.from_bytes(content)
    cache.check_scales()
    if cache.doubtful:
        first = cache.doubtful[0]
        _log.warning(
            "'%s': of %d scales, %d are implausible, the first %.3g of '%s'. That may be a mask, or a "
            "constant near zero; otherwise the cache is damaged.",
            *(path, len(cache.scales), len(cache.doubtful), cache.scales[first], first),
        )
    return cache


def read_pair(first: str, second: str) -> tuple[Thresholds, Thresholds]:
    """Read two files; or one file, and the thresholds that the method `second` finds in its histograms.

    Raises:
        InputError: a file cannot be read, or has no histograms to choose from.
    """
    one = read_thresholds(Path(first))
    if second not in METHODS or Path(second).exists():
        return one, read_thresholds(Path(second))
    if one.calibration is None or one.calibration.histograms is None:
        raise InputError(
            f"'{first}' keeps no histograms, so '{second}' cannot choose from them; calibrate with"
            " trtbuild calibrate."
        )
    chosen = one.calibration.chosen_with(second)
    amaxes = {name: found.amax for name, found in chosen.ranges.items()}
    return one, Thresholds(second, "another method", amaxes, chosen)
