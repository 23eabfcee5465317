"""Calibration files: versioned JSON; equal calibrations give equal bytes on every machine.

docs/calibration-file.md describes the format.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from calibrators.errors import CalibrationFileError, decoding
from calibrators.grid import NUM_MAGNITUDES, SIGN_OFFSET, magnitude_index
from calibrators.histogram import Histogram
from calibrators.ranges import TensorRange

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMAT", "VERSION", "FileContents", "read_file", "write_file"]

FORMAT = "trtbuild calibration"
VERSION = 1

_LARGEST_COUNT = 2**63 - 1
_EMPTY_BINS = '"bins": ""'

_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "str": (str,),
}


class FileContents(NamedTuple):
    """The content of a calibration file: the fields of `calibrators.Calibration`."""

    method: str
    ranges: Mapping[str, TensorRange]
    options: Mapping[str, float]
    provenance: Mapping[str, str]
    histograms: Mapping[str, Histogram] | None


def write_file(contents: FileContents) -> bytes:
    """Return the content of the file: UTF-8 JSON, tensors sorted by name."""
    tensors, bins = {}, []
    for name in sorted(contents.ranges):
        tensors[name] = _range_to_json(contents.ranges[name])
        if contents.histograms is not None:
            found = _histogram_to_json(contents.histograms[name])
            bins.append(found["bins"])
            tensors[name]["histogram"] = {**found, "bins": ""}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "method": contents.method,
        "options": dict(sorted(contents.options.items())),
        "provenance": dict(sorted(contents.provenance.items())),
        "tensors": tensors,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # The bins are most of the file, and `json` would scan each of their characters twice, so they are filled
    # in afterwards. `rsplit` finds only these places: the tensors come last, and a quotation mark inside a
    # JSON string always has a backslash before it.
    first, *others = text.rsplit(_EMPTY_BINS, len(bins))
    filled = (f'"bins": "{one}"{other}' for one, other in zip(bins, others))
    return "".join([first, *filled]).encode()


@decoding(CalibrationFileError, "damaged calibration file")
def read_file(content: bytes) -> FileContents:
    """Read what `write_file` wrote.

    Raises:
        CalibrationFileError: not a calibration file, damaged, or of a newer version; the message
            says what is wrong and in which tensor.
    """
    document = _parse(content)
    tensors = _member(document, "tensors", dict)
    ranges = {name: _range_from_json(name, entry) for name, entry in tensors.items()}
    with_histogram = [name for name, entry in tensors.items() if "histogram" in entry]
    if with_histogram and len(with_histogram) != len(tensors):
        raise CalibrationFileError("damaged calibration file: only some tensors have a histogram.")
    return FileContents(
        method=_member(document, "method", str),
        ranges=ranges,
        options=_members(document, "options", float),
        provenance=_members(document, "provenance", str),
        histograms={name: _histogram_from_json(name, tensors[name]) for name in with_histogram}
        if with_histogram
        else None,
    )


def _parse(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content, parse_constant=_refuse_constant)
    except ValueError as error:  # not UTF-8, or not JSON
        raise CalibrationFileError(f"not a calibration file: {error}.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CalibrationFileError(f'not a calibration file: it does not begin with "{FORMAT}".')
    version = _member(document, "version", int)
    if version > VERSION:
        raise CalibrationFileError(
            f"the calibration file has version {version}, and this program reads up to {VERSION}; "
            "use a newer one, or calibrate again."
        )
    return document


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


def _member(document: dict[str, Any], key: str, kind: type) -> Any:
    value = document.get(key)
    if not isinstance(value, kind):
        raise CalibrationFileError(f"damaged calibration file: no {kind.__name__} '{key}' in it.")
    return value


def _members(document: dict[str, Any], key: str, kind: type) -> dict[str, Any]:
    """The object `key`, checked to have values of one type only; an int passes as a float."""
    found: dict[str, Any] = _member(document, key, dict)
    for name, value in found.items():
        number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if not (number or isinstance(value, kind)):
            raise CalibrationFileError(
                f"damaged calibration file: '{name}' in '{key}' is not of type {kind.__name__}."
            )
    return found


def _range_to_json(entry: TensorRange) -> dict[str, Any]:
    # JSON has no infinity; null stands for it. The SQNR of a tensor without error is infinite, and so is
    # TensorRT's amax for a tensor that holds an infinity.
    return {
        key: None if value == math.inf else value
        for key, value in dataclasses.asdict(entry).items()
    }


def _range_from_json(name: str, entry: Any) -> TensorRange:
    if not isinstance(entry, dict):
        raise CalibrationFileError(f"damaged calibration file: tensor '{name}' is not an object.")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(TensorRange):
        value = entry.get(field.name)
        if field.name in ("amax", "sqnr_db") and field.name in entry and value is None:
            value = math.inf
        if not isinstance(value, _FIELD_TYPES[str(field.type)]) or isinstance(value, bool):
            raise CalibrationFileError(
                f"damaged calibration file: '{field.name}' of tensor '{name}' is missing or of the "
                "wrong type."
            )
        values[field.name] = _number(name, field.name, value)
    if not values["amax"] >= 0 or float(np.float32(values["amax"])) != values["amax"]:
        raise CalibrationFileError(
            f"damaged calibration file: amax {values['amax']} of tensor '{name}' is not a float32 "
            "value of at least 0."
        )
    return TensorRange(**values)


def _number(tensor: str, field: str, value: Any) -> Any:
    """The value of a field: a count that fits into 64 bits, or a float."""
    if isinstance(value, int) and field in ("num_values", "num_zeros"):
        if not 0 <= value <= _LARGEST_COUNT:
            raise CalibrationFileError(
                f"damaged calibration file: '{field}' of tensor '{tensor}' is {value:.3g}, not a count."
            )
        return value
    return float(value) if isinstance(value, int) else value


def _histogram_to_json(histogram: Histogram) -> dict[str, Any]:
    state = histogram.__getstate__()
    steps = np.diff(state["numbers"], prepend=0)
    packed = _pack(np.stack([steps, state["counts"]], axis=1).ravel())
    return {
        "bins": base64.b64encode(packed).decode("ascii"),
        "num_nan": state["num_nan"],
        "num_inf": state["num_inf"],
    }


def _histogram_from_json(name: str, entry: dict[str, Any]) -> Histogram:
    with decoding(
        CalibrationFileError, f"damaged calibration file: the histogram of tensor '{name}'"
    ):
        stored = entry["histogram"]
        numbers, counts = _bins(base64.b64decode(stored["bins"], validate=True))
        histogram = Histogram.from_bins(
            numbers,
            counts,
            **{key: entry[key] for key in ("num_zeros", "minimum", "maximum")},
            **{key: int(stored[key]) for key in ("num_nan", "num_inf")},
        )
        _check_extremes(histogram, numbers)
    if histogram.num_values != entry["num_values"]:
        raise CalibrationFileError(
            f"damaged calibration file: the histogram of tensor '{name}' counts "
            f"{histogram.num_values} values instead of {entry['num_values']}."
        )
    return histogram


def _check_extremes(histogram: Histogram, numbers: np.ndarray) -> None:
    largest = int((numbers % SIGN_OFFSET).max(initial=0))
    if magnitude_index(histogram.observed_amax) != largest:
        raise ValueError("its bins do not fit the minimum and maximum")


def _bins(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and counts of the occupied bins; stored are pairs: step from the last bin's number, count."""
    steps, counts = _unpack(packed).reshape(-1, 2).T
    numbers = np.cumsum(steps)
    if np.any(steps[1:] <= 0) or np.any(counts <= 0):
        raise ValueError("its bins are out of order, or empty")
    beyond = (steps >= 2 * SIGN_OFFSET) | (numbers >= 2 * SIGN_OFFSET)
    if np.any(beyond | (numbers % SIGN_OFFSET >= NUM_MAGNITUDES)):
        raise ValueError("it has a bin that is not on the grid")
    return numbers, counts


def _pack(numbers: np.ndarray) -> bytes:
    """Non-negative integers as LEB128: seven bits per byte, lowest first, and a top bit if more follow."""
    lengths = np.ones(numbers.size, np.int64)
    for bits in range(7, int(numbers.max(initial=0)).bit_length(), 7):
        lengths += numbers >= 1 << bits
    ends = np.cumsum(lengths)
    packed = np.empty(lengths.sum(), np.uint8)
    places, rest = ends - lengths, numbers
    # one octet of all numbers per round: most numbers end after the first
    while rest.size:
        more = rest > 0x7F
        packed[places] = rest
        places, rest = places[more], rest[more]
        packed[places] |= 0x80
        places, rest = places + 1, rest >> 7
    return packed.tobytes()


def _unpack(packed: bytes) -> np.ndarray:
    """The numbers that `_pack` packed, ``int64``."""
    octets = np.frombuffer(packed, np.uint8)
    if octets.size == 0:
        return np.zeros(0, np.int64)
    if octets[-1] & 0x80:
        raise ValueError("it ends in the middle of a number")
    starts = np.concatenate([[0], np.flatnonzero(octets < 0x80)[:-1] + 1])
    lengths = np.diff(starts, append=octets.size)
    if lengths.max() > 9:
        raise ValueError("a number is too large")
    places = np.arange(octets.size) - np.repeat(starts, lengths)
    return np.add.reduceat((octets & 0x7F).astype(np.int64) << (7 * places), starts)
