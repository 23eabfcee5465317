"""TensorRT's calibration cache: the text that TensorRT passes to ``IInt8Calibrator::writeCalibrationCache``.

The first line is ``TRT-<version digits>-<algorithm>``. Each following line is ``name: word``. The
word is the float32 *scale*, amax / 127, as a big-endian hexadecimal number without leading zeros: a
scale of zero is the digit ``0``, infinity is ``7f800000``. Names may hold spaces, colons and
brackets. The legacy calibrator (TensorRT 2 to 6) wrote other header lines, which are kept as they
are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrators.errors import CacheError
from calibrators.quantization_error import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calibrators.calibration import Calibration

__all__ = ["CalibrationCache", "version_digits"]

_HEADER = re.compile(r"TRT-(\d+)-(\w+)")
_LEGACY_HEADER = re.compile(r"[0-9a-fA-F]+")  # two doubles, quantile and cutoff, without a colon
_WORD = re.compile(r"[0-9a-fA-F]{1,8}")
_ALGORITHMS = {"minmax": "MinMaxCalibration"}
# Limits of plausible scales: masks of -1e9 and outputs of a hundred billion lie within.
_LEAST, _MOST = 2.0**-40, 2.0**40
# A cache has the wrong byte order if at least this share of its scales is plausible after swapping bytes.
_TURNED = 0.9


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
        """Clipping point of each tensor, 127 times its scale; only of positive, finite scales."""
        usable = {name: float(scale) for name, scale in self.scales.items() if 0 < scale < math.inf}
        return {name: LEVELS * scale for name, scale in usable.items()}

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Tensors with an implausible scale: positive, finite, and outside 2**-40 to 2**40."""
        return tuple(n for n, s in self.scales.items() if 0 < s < math.inf and not _is_usual(s))

    def check_scales(self) -> None:
        """Check that the scales are plausible.

        Raises:
            CacheError: few scales are plausible, and nearly all are after swapping the bytes of each word:
                the writer used the byte order of its machine, not TensorRT's. Or the cache has several
                scales, and none is plausible.
        """
        words = [int(np.float32(scale).view(np.uint32)) for scale in self.scales.values()]
        if _are_turned(words):
            first = self.doubtful[0]
            raise CacheError(
                f"the scales of the calibration cache, such as {self.scales[first]} of '{first}', {_TURN}"
            )
        if 1 < len(self.doubtful) == len(self.amaxes):
            first = self.doubtful[0]
            raise CacheError(
                "no scale of the calibration cache makes sense; the first is "
                f"{self.scales[first]} of '{first}'. A word is the float32 of amax / 127 in hexadecimal, as "
                "struct.pack('>f', scale).hex() gives it."
            )

    @classmethod
    def from_calibration(cls, calibration: Calibration, version: str) -> CalibrationCache:
        """Return the cache of a calibration, its tensors in the order of the calibration.

        Args:
            calibration: any calibration; its scales are written unchanged.
            version: TensorRT's digits, see `version_digits`. Other versions of TensorRT ignore the cache.
        """
        algorithm = _ALGORITHMS.get(calibration.method, "EntropyCalibration2")
        scales = {name: entry.scale for name, entry in calibration.ranges.items()}
        return cls(f"TRT-{version}-{algorithm}", scales)

    @classmethod
    def from_bytes(cls, content: bytes) -> CalibrationCache:
        """Read a cache.

        A byte-order mark, empty lines, spaces and carriage returns at line ends, and repeated equal
        lines are ignored.

        Raises:
            CacheError: not a calibration cache, cut off, or two scales for one tensor; the message names
                the line.
        """
        try:
            lines = content.decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise CacheError(f"not a calibration cache: byte {error.start} is not text.") from None
        header = lines[0].rstrip()
        if not (_HEADER.fullmatch(header) or _LEGACY_HEADER.fullmatch(header)):
            raise CacheError(
                f"not a calibration cache: it begins with {_shown(header)} instead of "
                "'TRT-<version>-<algorithm>'."
            )
        found = [
            (number, *_entry(line.rstrip(), number))
            for number, line in enumerate(lines[1:], 2)
            if line.strip()
        ]
        turned = _are_turned([word for _, _, word in found])
        scales: dict[str, np.float32] = {}
        for number, name, word in found:
            scale = _scale(word, f"calibration cache, line {number}: the scale of '{name}'", turned)
            if scales.setdefault(name, scale) != scale:
                raise CacheError(
                    f"calibration cache, line {number}: '{name}' occurs twice, with the scales "
                    f"{scales[name]} and {scale}."
                )
        _check_not_cut(lines)
        return cls(header, scales)

    def to_bytes(self) -> bytes:
        """Return the text as TensorRT writes it; reading it back gives the same scales to the bit.

        Raises:
            CacheError: a name that does not fit in a line, or a scale that is negative or NaN.
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
    """Return the digits of a TensorRT version in a header: ``10.3.0`` gives 100300, ``8.6.1`` gives 8601.

    Raises:
        CacheError: not three numbers with dots; a fourth is ignored.
    """
    match = re.match(r"(\d+)\.(\d+)\.(\d+)(\.|$)", version)
    if not match:
        raise CacheError(f"'{version}' is not a TensorRT version; write it like 10.3.0.")
    major, minor, patch = (int(part) for part in match.groups()[:3])
    return str(major * (10_000 if major >= 10 else 1000) + minor * 100 + patch)


def _entry(line: str, number: int) -> tuple[str, int]:
    """The tensor's name and the bits of its scale, from one line."""
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
    return name, int(word, 16)


def _scale(word: int, what: str, turned: bool) -> np.float32:
    scale: np.float32 = np.uint32(word).view(np.float32)
    if not scale >= 0 or np.signbit(scale):
        why = f"the scales {_TURN}" if turned else "a scale must be a number of at least 0."
        raise CacheError(f"{what} is {scale}; {why}")
    return scale


_TURN = (
    "make no sense, but do with the bytes of each word swapped: the words must be big-endian. Write the "
    "cache again, with struct.pack('>f', scale).hex()."
)


def _are_turned(words: Sequence[int]) -> bool:
    """Whether the scales are plausible only after swapping the bytes of each word."""
    given = np.array([word for word in words if word], np.uint32)  # zero is zero either way
    scales, turned = given.view(np.float32), given.byteswap().view(np.float32)
    told = ~(np.isposinf(scales) | np.isposinf(turned))  # infinity does not tell the order
    usual, usual_turned = (int(np.sum(_is_usual(one[told]))) for one in (scales, turned))
    return bool(usual_turned >= _TURNED * np.sum(told) > 2 * usual)


def _is_usual(scale: Any) -> Any:
    """Whether a scale, or each scale of an array, is plausible."""
    return (scale >= _LEAST) & (scale <= _MOST)


def _check_not_cut(lines: list[str]) -> None:
    """Check that the last number is complete: it has eight digits, or a line end follows it."""
    word = lines[-1].rpartition(": ")[2]
    if lines[-1].strip() and len(lines) > 1 and len(word) < 8:
        raise CacheError(
            f"the calibration cache ends inside line {len(lines)}, {_shown(lines[-1])}: it seems cut off. "
            "Copy it again; if it is whole, end it with a new line."
        )


def _shown(text: str) -> str:
    """Text of the file for a message: quoted, and shortened to 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
