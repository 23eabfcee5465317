"""C++ objects made in Python: memory that begins with a pointer to a table of functions.

A call on an object of the bindings becomes ``object->impl->table[slot](impl, arguments...)``. Here impl
is the object itself and each table entry a ctypes callback. A structure is returned through a hidden first
argument (System V ABI), which is why this runs on x86-64 only.
"""

from __future__ import annotations

import ctypes
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

from tests.tensorrt_stub.slots import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tensorrt_stub.world import World

ptr, text, size, i32, u32, i64, boolean = (
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_int32,
    ctypes.c_uint32,
    ctypes.c_int64,
    ctypes.c_bool,
)
TABLE_LENGTH = 160
RTTI = 2  # a table is preceded by the offset to the top and by the type information; none here


class Dims(ctypes.Structure):
    _fields_ = (("rank", i32), ("extent", i64 * 8))

    @classmethod
    def at(cls, address: int) -> tuple[int, ...]:
        dims = cls.from_address(address)
        return tuple(dims.extent[: dims.rank]) if dims.rank >= 0 else ()

    @classmethod
    def write(cls, address: int, shape: tuple[int, ...]) -> None:
        dims = cls.from_address(address)
        dims.rank = len(shape)
        dims.extent[: len(shape)] = shape


def virtual(result: Any, *arguments: Any) -> Callable[[Any], Any]:
    """Mark a method as a virtual function; `result` is a ctypes type, None, or `Dims`."""

    def mark(method: Any) -> Any:
        method.virtual = (result, arguments)
        return method

    return mark


class Native:
    """A native object. Subclasses name their interface and mark its virtual functions."""

    interface: ClassVar[str]
    _tables: ClassVar[dict[type, Any]] = {}
    _alive: ClassVar[dict[int, Native]] = {}
    _kept: ClassVar[list[Any]] = []

    def __init__(self, world: World) -> None:
        self.world = world
        if type(self) not in Native._tables:
            Native._tables[type(self)] = self._make_table()
        self._memory = (ptr * 512)()
        self.address = ctypes.addressof(self._memory)
        self._memory[0] = ctypes.addressof(Native._tables[type(self)]) + 8 * RTTI
        self._memory[1] = self.address
        Native._alive[self.address] = self

    @classmethod
    def of(cls, address: int) -> Any:
        return Native._alive[address]

    @classmethod
    def keep(cls, content: bytes) -> int:
        """Return the address of `content`, and keep it alive."""
        buffer = ctypes.create_string_buffer(content)
        Native._kept.append(buffer)
        return ctypes.addressof(buffer)

    def _make_table(self) -> Any:
        table = (ptr * (RTTI + TABLE_LENGTH))()
        nothing = ctypes.CFUNCTYPE(i64, ptr)(lambda _: 0)
        Native._kept.append(nothing)
        for slot in range(TABLE_LENGTH):
            table[RTTI + slot] = ctypes.cast(nothing, ptr).value
        for name, slots in SLOTS[self.interface].items():
            slot = slots[self.world.major == 11]
            method = getattr(type(self), name, None)
            if slot is None or method is None:
                continue
            table[RTTI + slot] = ctypes.cast(self._callback(name, method), ptr).value
        return table

    def _callback(self, name: str, method: Any) -> Any:
        result, arguments = method.virtual
        key = f"{self.interface}.{name}"
        world = self.world

        def call(this: int, *given: Any) -> Any:
            values = tuple(v.decode() if isinstance(v, bytes) else v for v in given)
            world.calls.append((key, *values))
            if key in world.says:
                world.log(*world.says[key])
            if key in world.failing:
                return world.failing[key] if result is not None else None
            try:
                answer = method(Native._alive[this], *values)
            except Exception:  # noqa: BLE001  it may not cross the native frames
                world.errors.append(traceback.format_exc())
                return 0 if result is not None else None
            if isinstance(answer, Native):
                return answer.address
            if isinstance(answer, (str, bytes)):
                return Native.keep(answer.encode() if isinstance(answer, str) else answer)
            return answer if answer is not None or result is None else 0

        def call_for_dims(target: int, this: int, *given: Any) -> int:
            values = tuple(v.decode() if isinstance(v, bytes) else v for v in given)
            shape = method(Native._alive[this], *values)
            Dims.from_address(target).rank = -1  # means no shape
            if shape is not None:
                Dims.write(target, tuple(shape))
            return target

        if result is Dims:
            kept = ctypes.CFUNCTYPE(ptr, ptr, ptr, *arguments)(call_for_dims)
        else:
            kept = ctypes.CFUNCTYPE(ptr if result is text else result, ptr, *arguments)(call)
        Native._kept.append(kept)
        return kept


def invoke(address: int, slot: int, result: Any, *typed: tuple[Any, Any]) -> Any:
    """Call virtual function `slot` of an object of the bindings, such as a callback."""
    table = ptr.from_address(address).value
    function = ptr.from_address(table + 8 * slot).value
    prototype = ctypes.CFUNCTYPE(result, ptr, *(kind for kind, _ in typed))
    return prototype(function)(address, *(value for _, value in typed))
