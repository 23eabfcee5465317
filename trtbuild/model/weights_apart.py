"""Splits the large weights off an ONNX file and joins them again, without holding all of them in memory.

Protocol Buffers' own reader and writer hold a network of a gigabyte two or three times. Weights are fields
of plain bytes, so they can stay in the file while the rest is parsed, and be copied from file to file when it
is written. The encoding: https://protobuf.dev/programming-guides/encoding/; the field numbers: onnx.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx

from trtbuild.files import write_in_parts

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

__all__ = ["read_apart", "write_together"]

_STAYS = 1 << 16
"""Bytes. Weights up to this size are parsed with the rest."""

_GRAPH_OF_MODEL = 7
_INITIALIZER_OF_GRAPH = 5
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_OTHER_DATA = frozenset({4, 5, 6, 7, 10, 11, _EXTERNAL_DATA})

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """A field of a message: number, wire type, its first byte, and the range of its content."""

    number: int
    wire: int
    begin: int
    start: int
    stop: int


def read_apart(content: mmap.mmap, location: str, *, only_aligned: bool = False) -> bytes:
    """Return a network as it would be if its large weights were kept in another file.

    Args:
        content: an ONNX file.
        location: the file name that the weights in the result refer to.
        only_aligned: keep weights inside whose offset is not a multiple of their type's size.

    Raises:
        ValueError: the content is not a protobuf.
    """

    def tensor(start: int, stop: int) -> bytes:
        fields = list(_fields(content, start, stop))
        raw = [one for one in fields if one.number == _RAW_DATA]
        if len(raw) != 1 or raw[0].wire != _BYTES or raw[0].stop - raw[0].start <= _STAYS:
            return content[start:stop]
        if any(one.number in _OTHER_DATA for one in fields):  # the checker reports what is wrong
            return content[start:stop]
        place = raw[0]
        rest = onnx.TensorProto.FromString(
            content[start : place.begin] + content[place.stop : stop]
        )
        if rest.data_location == onnx.TensorProto.EXTERNAL:  # invalid likewise
            return content[start:stop]
        if only_aligned and place.start % _item_size(rest.data_type):
            return content[start:stop]
        entries = {"location": location, "offset": place.start, "length": place.stop - place.start}
        for key, value in entries.items():
            rest.external_data.add(key=key, value=str(value))
        rest.data_location = onnx.TensorProto.EXTERNAL
        changed: bytes = rest.SerializeToString()
        return changed

    def graph(start: int, stop: int) -> bytes:
        return b"".join(_changed(content, start, stop, _INITIALIZER_OF_GRAPH, tensor))

    return b"".join(_changed(content, 0, len(content), _GRAPH_OF_MODEL, graph))


def _item_size(data_type: int) -> int:
    """Size in bytes; 1 for types that share a byte and for unknown ones."""
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except KeyError:  # the runtime reports what is wrong
        return 1


def _changed(
    content: mmap.mmap, start: int, stop: int, number: int, change: Callable[[int, int], bytes]
) -> Iterator[bytes]:
    """The pieces of a message in which `change` has replaced every message of one field."""
    for field in _fields(content, start, stop):
        if field.number == number and field.wire == _BYTES:
            inner = change(field.start, field.stop)
            yield _head(number, len(inner)) + inner
        else:
            yield content[field.begin : field.stop]


def _fields(content: bytes | mmap.mmap, start: int, stop: int) -> Iterator[_Field]:
    while start < stop:
        begin = start
        key, start = _read_varint(content, start, stop)
        number, wire = key >> 3, key & 7
        if number == 0:  # zeros, as in a part of a file that was never written
            raise ValueError("a field without number")
        if wire == _BYTES:
            length, start = _read_varint(content, start, stop)
        elif wire == _VARINT:
            length = _read_varint(content, start, stop)[1] - start
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if start + length > stop:
            raise ValueError("a field ends beyond its message")
        yield _Field(number, wire, begin, start, start + length)
        start += length


def _read_varint(content: bytes | mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    """The number at `start`, and where it ends."""
    found = shift = 0
    while start < stop and shift < 64:
        byte = content[start]
        start += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, start
        shift += 7
    raise ValueError("a number has no end")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def write_together(content: bytes, file: BinaryIO, weights: Mapping[str, memoryview]) -> None:
    """Write a network that only refers to its large weights, with the weights put inside.

    The file equals, to the byte, one that is written from memory as a whole.

    Args:
        content: the network, its fields in the order of their numbers.
        file: the target.
        weights: name -> bytes, for each initializer of the graph that is only referred to.
    """
    for field in _fields(content, 0, len(content)):
        if field.number != _GRAPH_OF_MODEL:
            file.write(content[field.begin : field.stop])
            continue
        inner = [
            _Part.of(content, one, weights) for one in _fields(content, field.start, field.stop)
        ]
        file.write(_head(field.number, sum(one.length for one in inner)))
        for part in inner:
            part.write(file)


class _Part(NamedTuple):
    """A field of a graph: the bytes in front of a weight, the weight, and the bytes behind."""

    before: bytes
    weight: memoryview | None = None
    behind: bytes = b""

    @classmethod
    def of(cls, content: bytes, field: _Field, weights: Mapping[str, memoryview]) -> _Part:
        """Part one field; only a weight that lies in `weights` stands apart."""
        whole = content[field.begin : field.stop]
        if field.number != _INITIALIZER_OF_GRAPH:
            return cls(whole)
        tensor = onnx.TensorProto.FromString(content[field.start : field.stop])
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return cls(whole)
        weight = weights[tensor.name]
        kept = [
            one
            for one in _fields(content, field.start, field.stop)
            if one.number not in (_EXTERNAL_DATA, _DATA_LOCATION)
        ]
        front, behind = (
            b"".join(content[one.begin : one.stop] for one in kept if is_in_front(one.number))
            for is_in_front in (_RAW_DATA.__gt__, _RAW_DATA.__lt__)
        )
        front += _head(_RAW_DATA, weight.nbytes)
        size = len(front) + weight.nbytes + len(behind)
        return cls(_head(field.number, size) + front, weight, behind)

    @property
    def length(self) -> int:
        """Length in bytes."""
        own = 0 if self.weight is None else self.weight.nbytes
        return len(self.before) + own + len(self.behind)

    def write(self, file: BinaryIO) -> None:
        """Write it."""
        file.write(self.before)
        if self.weight is not None:
            write_in_parts(file, self.weight)
        file.write(self.behind)


def _head(number: int, length: int) -> bytes:
    """Tag and length before a length-delimited field."""
    return _varint(number << 3 | _BYTES) + _varint(length)
