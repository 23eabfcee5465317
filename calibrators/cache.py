"""TensorRT's calibration cache: the text that ``IInt8Calibrator::writeCalibrationCache`` is given.

The first line is ``TRT-<version digits>-<algorithm>``. Each line after it is ``name: word``, the
word being the float32 *scale*, amax / 127, as a big-endian hexadecimal number without leading
zeros: a scale of zero is the digit ``0``, infinity is ``7f800000``. Names may hold spaces, colons
and brackets. The legacy calibrator (TensorRT 2 to 6) wrote other header lines, which are kept as
they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibrators.errors import CacheError
from calibrators.quantization_error import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibrators.calibration import Calibration

__all__ = ["CalibrationCache", "version_digits"]

_HEADER = re.compile(r"TRT-(\d+)-(\w+)")
_LEGACY_HEADER = re.compile(r"[0-9a-fA-F]+")  # two doubles, quantile and cutoff, without a colon
_WORD = re.compile(r"[0-9a-fA-F]{1,8}")
_ALGORITHMS = {"minmax": "MinMaxCalibration"}


@dataclass(frozen=True)
class CalibrationCache:
    """Scales of tensors by name, in the order of the file, and the header."""

    header: str
    """The first line: ``TRT-100300-EntropyCalibration2``, or the legacy calibrator's numbers."""
    scales: Mapping[str, np.float32]

    @property
    def version(self) -> str:
        """The digits of the TensorRT version that wrote it, 100300 for 10.3.0; empty for legacy."""
        match = _HEADER.fullmatch(self.header)
        return match[1] if match else ""

    @property
    def algorithm(self) -> str:
        """The calibrator: ``EntropyCalibration2``, ``MinMaxCalibration``, ... or ``Legacy``."""
        match = _HEADER.fullmatch(self.header)
        return match[2] if match else "Legacy"

    @property
    def amaxes(self) -> dict[str, float]:
        """Clipping point of each tensor, 127 times its scale; only of scales that can be used."""
        usable = {name: float(scale) for name, scale in self.scales.items() if 0 < scale < math.inf}
        return {name: LEVELS * scale for name, scale in usable.items()}

    @classmethod
    def from_calibration(cls, calibration: Calibration, version: str) -> CalibrationCache:
        """The cache of a calibration, its tensors in the order of the calibration.

        Args:
            calibration: any; its scales are written as they are.
            version: TensorRT's digits, see `version_digits`. Another version skips the cache.
        """
        algorithm = _ALGORITHMS.get(calibration.method, "EntropyCalibration2")
        scales = {name: entry.scale for name, entry in calibration.ranges.items()}
        return cls(f"TRT-{version}-{algorithm}", scales)

    @classmethod
    def from_bytes(cls, content: bytes) -> CalibrationCache:
        """Read a cache.

        A byte-order mark, empty lines, spaces and carriage returns at line ends are passed over, and so
        is an equal line that is there twice.

        Raises:
            CacheError: not such a text, cut off, or one tensor with two scales; the message names the
                line.
        """
        try:
            lines = content.decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise CacheError(f"not a calibration cache: byte {error.start} is no text.") from None
        header = lines[0].rstrip()
        if not (_HEADER.fullmatch(header) or _LEGACY_HEADER.fullmatch(header)):
            raise CacheError(
                f"not a calibration cache: it begins with {_shown(header)} instead of "
                "'TRT-<version>-<algorithm>'."
            )
        scales: dict[str, np.float32] = {}
        for number, line in enumerate(lines[1:], 2):
            if line.strip():
                name, scale = _entry(line.rstrip(), number)
                if scales.setdefault(name, scale) != scale:
                    raise CacheError(
                        f"calibration cache, line {number}: '{name}' is there twice, with the scales "
                        f"{scales[name]} and {scale}."
                    )
        _check_not_cut(lines)
        return cls(header, scales)

    def to_bytes(self) -> bytes:
        """The text, as TensorRT writes it: reading it gives the same scales to the bit.

        Raises:
            CacheError: a name that no line can hold, or a scale that is negative or not a number.
        """
        lines = [self.header]
        for name, scale in self.scales.items():
            if not name.strip() or name != name.strip() or "\n" in name:
                raise CacheError(f"a calibration cache cannot hold the tensor name {_shown(name)}.")
            if not scale >= 0:
                raise CacheError(f"a calibration cache cannot hold {scale} as scale of '{name}'.")
            lines.append(f"{name}: {int(np.float32(scale).view(np.uint32)):x}")
        return ("\n".join(lines) + "\n").encode()


def version_digits(version: str) -> str:
    """The digits of a TensorRT version in a header: ``10.3.0`` gives 100300, ``8.6.1`` gives 8601.

    Raises:
        CacheError: not three numbers with dots; a fourth is passed over.
    """
    match = re.match(r"(\d+)\.(\d+)\.(\d+)(\.|$)", version)
    if not match:
        raise CacheError(f"'{version}' is no TensorRT version; write it like 10.3.0.")
    major, minor, patch = (int(part) for part in match.groups()[:3])
    return str(major * (10_000 if major >= 10 else 1000) + minor * 100 + patch)


def _entry(line: str, number: int) -> tuple[str, np.float32]:
    name, colon, word = line.rpartition(": ")
    if not colon or not name.strip():
        raise CacheError(
            f"calibration cache, line {number}: {_shown(line)} is not 'name: hexadecimal scale'."
        )
    if not _WORD.fullmatch(word):
        raise CacheError(
            f"calibration cache, line {number}: the scale of '{name}' is {_shown(word)}; expected "
            "up to eight hexadecimal digits."
        )
    scale = np.uint32(int(word, 16)).view(np.float32)
    if not scale >= 0 or np.signbit(scale):
        raise CacheError(
            f"calibration cache, line {number}: the scale of '{name}' is {scale}; a scale is not "
            "negative and a number."
        )
    return name, scale


def _check_not_cut(lines: list[str]) -> None:
    """Check that the last number is whole: one of eight digits is, and one that a line end follows."""
    word = lines[-1].rpartition(": ")[2]
    if lines[-1].strip() and len(lines) > 1 and len(word) < 8:
        raise CacheError(
            f"the calibration cache ends inside line {len(lines)}, {_shown(lines[-1])}: it seems cut off. "
            "Copy it again; if it is whole, end it with a new line."
        )


def _shown(text: str) -> str:
    """Foreign text, quoted, and shortened to what a message can hold."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
