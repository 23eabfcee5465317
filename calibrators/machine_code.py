"""A small language for loops over many values: Python operators emit LLVM code, compiled at the first call.

LLVM loads and compiles a loop in a tenth of a second, on any core, and leaves no files. Numba makes the same
machine code from a loop in plain Python, but takes half a second to load a loop that it has compiled before.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from llvmlite import binding, ir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "FLOAT32",
    "FLOAT64",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "Array",
    "Code",
    "Kind",
    "Number",
    "Variable",
    "array_of",
    "has_avx2",
    "machine_code",
    "vector_of",
]

_SPEED = 3  # like a compiler's -O3


class Kind(NamedTuple):
    """Type of a number: its LLVM and C type, its bits, and whether it is signed, a float, or an address."""

    type: ir.Type
    of_c: Any
    bits: int
    signed: bool = True
    is_float: bool = False
    is_address: bool = False


UINT8 = Kind(ir.IntType(8), ctypes.c_uint8, 8, signed=False)
UINT16 = Kind(ir.IntType(16), ctypes.c_uint16, 16, signed=False)
UINT32 = Kind(ir.IntType(32), ctypes.c_uint32, 32, signed=False)
INT32 = Kind(ir.IntType(32), ctypes.c_int32, 32)
INT64 = Kind(ir.IntType(64), ctypes.c_int64, 64)
FLOAT32 = Kind(ir.FloatType(), ctypes.c_float, 32, is_float=True)
FLOAT64 = Kind(ir.DoubleType(), ctypes.c_double, 64, is_float=True)


def array_of(kind: Kind) -> Kind:
    """The kind of an argument that is the address of numbers; arrays of two arguments must not overlap."""
    return kind._replace(is_address=True)


def vector_of(kind: Kind, lanes: int) -> Kind:
    """The kind of a vector: several numbers that one instruction processes at once."""
    return kind._replace(type=ir.VectorType(kind.type, lanes))


def has_avx2() -> bool:
    """Whether this processor has AVX2: vectors of 32 bytes, and one instruction to permute their lanes."""
    return bool(binding.get_host_cpu_features().get("avx2"))


class Number:
    """A number in the emitted code; operators emit instructions, and convert a Python number to this kind.

    If the number is a vector, each instruction works on all its lanes.
    """

    def __init__(self, code: Code, kind: Kind, value: Any) -> None:
        self.code, self.kind, self.value = code, kind, value

    def __add__(self, other: Number | float) -> Number:
        return self._with(other, "add")

    def __sub__(self, other: Number | float) -> Number:
        return self._with(other, "sub")

    def __mul__(self, other: Number | float) -> Number:
        return self._with(other, "mul")

    def __truediv__(self, other: Number | float) -> Number:
        return self._with(other, "div")

    def __and__(self, other: Number | int) -> Number:
        return self._with(other, "and_")

    def __xor__(self, other: Number | int) -> Number:
        return self._with(other, "xor")

    def __rshift__(self, other: int) -> Number:
        return self._with(other, "ashr" if self.kind.signed else "lshr")

    def __lt__(self, other: Number | float) -> ir.Value:
        return self._compared("<", other)

    def __gt__(self, other: Number | float) -> ir.Value:
        return self._compared(">", other)

    def equals(self, other: Number | float) -> ir.Value:
        """Whether the two are equal."""
        return self._compared("==", other)

    def smaller(self, other: Number | float) -> Number:
        """The smaller of the two."""
        return self.code.choose(self < other, self, other)

    def larger(self, other: Number | float) -> Number:
        """The larger of the two."""
        return self.code.choose(self > other, self, other)

    def rounded(self) -> Number:
        """A float rounded to the nearest integer, ties to even."""
        rint = self.code.builder.module.declare_intrinsic("llvm.rint", [self.kind.type])
        return Number(self.code, self.kind, self.code.builder.call(rint, [self.value]))

    def magnitude(self) -> Number:
        """The absolute value of a float."""
        fabs = self.code.builder.module.declare_intrinsic("llvm.fabs", [self.kind.type])
        return Number(self.code, self.kind, self.code.builder.call(fabs, [self.value]))

    def num_ones(self) -> Number:
        """How many bits of an integer are 1."""
        return Number(self.code, self.kind, self.code.builder.ctpop(self.value))

    def to(self, kind: Kind) -> Number:
        """Convert to another kind: a narrower integer keeps the lower bits, a float loses its fraction."""
        before = self.kind
        if before.is_float and kind.is_float:
            cast = "fpext" if kind.bits > before.bits else "fptrunc"
        elif before.is_float:
            cast = "fptosi" if kind.signed else "fptoui"
        elif kind.is_float:
            cast = "sitofp" if before.signed else "uitofp"
        elif kind.bits == before.bits:
            return Number(self.code, kind, self.value)
        elif kind.bits < before.bits:
            cast = "trunc"
        else:
            cast = "sext" if before.signed else "zext"
        return Number(self.code, kind, getattr(self.code.builder, cast)(self.value, kind.type))

    def lanes(self) -> list[Number]:
        """The lanes of a vector, as single numbers."""
        of_one = self.kind._replace(type=self.kind.type.element)
        extract = self.code.builder.extract_element
        places = (ir.Constant(ir.IntType(32), lane) for lane in range(self.kind.type.count))
        return [Number(self.code, of_one, extract(self.value, place)) for place in places]

    def in_order(self, places: Number) -> Number:
        """A vector of the lanes at `places`, a vector of indices; one instruction with AVX2."""
        builder, found = self.code.builder, ir.Constant(self.kind.type, ir.Undefined)
        for lane, place in enumerate(places.lanes()):
            one = builder.extract_element(self.value, place.value)
            found = builder.insert_element(found, one, ir.Constant(ir.IntType(32), lane))
        return Number(self.code, self.kind, found)

    def _with(self, other: Number | float, operation: str) -> Number:
        builder = self.code.builder
        second = self.code.number(other, self.kind).value
        if self.kind.is_float:
            write = getattr(builder, f"f{operation}")
            return Number(self.code, self.kind, write(self.value, second, flags=self.code.flags))
        return Number(self.code, self.kind, getattr(builder, operation)(self.value, second))

    def _compared(self, sign: str, other: Number | float) -> ir.Value:
        builder = self.code.builder
        second = self.code.number(other, self.kind).value
        if self.kind.is_float:
            return builder.fcmp_ordered(sign, self.value, second, flags=self.code.flags)
        compare = builder.icmp_signed if self.kind.signed else builder.icmp_unsigned
        return compare(sign, self.value, second)


class Array:
    """Numbers in memory, read and written by position."""

    def __init__(self, code: Code, kind: Kind, pointer: ir.Value) -> None:
        self._code, self._kind, self._pointer = code, kind, pointer

    def __getitem__(self, position: Number) -> Number:
        value = self._code.builder.load(self._place(position), typ=self._kind.type)
        return Number(self._code, self._kind, value)

    def __setitem__(self, position: Number, number: Number) -> None:
        self._code.builder.store(number.value, self._place(position))

    def vector(self, position: Number, lanes: int) -> Number:
        """A vector of the `lanes` numbers from a position on."""
        kind, place = vector_of(self._kind, lanes), self._place(position)
        value = self._code.builder.load(place, align=self._kind.bits // 8, typ=kind.type)
        return Number(self._code, kind, value)

    def put_vector(self, position: Number, numbers: Number) -> None:
        """Store the lanes of a vector from a position on."""
        self._code.builder.store(numbers.value, self._place(position), align=self._kind.bits // 8)

    def touch(self, position: Number) -> None:
        """Load the number at a position into the nearest cache; its value is not used."""
        # an atomic load, as LLVM removes a plain load whose value is unused
        place, size = self._place(position), self._kind.bits // 8
        self._code.builder.load_atomic(place, "monotonic", size, typ=self._kind.type)

    def _place(self, position: Number) -> ir.Value:
        return self._code.builder.gep(self._pointer, [position.value], source_etype=self._kind.type)


class Variable:
    """A variable of the emitted code; LLVM keeps it in a register."""

    def __init__(self, code: Code, first: Number) -> None:
        with code.builder.goto_entry_block():
            self._place = code.builder.alloca(first.kind.type)
        self._code, self._kind = code, first.kind
        self.set(first)

    def get(self) -> Number:
        """The current value."""
        value = self._code.builder.load(self._place, typ=self._kind.type)
        return Number(self._code, self._kind, value)

    def set(self, number: Number) -> None:
        """Assign a value."""
        self._code.builder.store(number.value, self._place)


class Code:
    """The function being emitted.

    Args:
        builder: LLVM's builder, at the start of the function.
        flags: LLVM's fast-math flags for float operations, such as ``reassoc``.
    """

    def __init__(self, builder: ir.IRBuilder, flags: tuple[str, ...] = ()) -> None:
        self.builder, self.flags = builder, flags

    def number(self, number: Number | float, kind: Kind) -> Number:
        """A Python number as a constant of this kind; a `Number` unchanged."""
        return number if isinstance(number, Number) else Number(self, kind, kind.type(number))

    def array_at(self, address: Number, kind: Kind) -> Array:
        """The array at an address."""
        return Array(self, kind, self.builder.inttoptr(address.value, ir.PointerType()))

    def choose(self, condition: ir.Value, yes: Number, no: Number | float) -> Number:
        """`yes` if the condition holds, else `no`; without a branch."""
        other = self.number(no, yes.kind).value
        return Number(self, yes.kind, self.builder.select(condition, yes.value, other))

    def bits_of(self, conditions: ir.Value) -> Number:
        """The conditions of a vector's eight lanes as an integer's bits; the first lane is the lowest bit."""
        return Number(self, UINT8, self.builder.bitcast(conditions, UINT8.type))

    def when(self, condition: ir.Value, *, likely: bool | None = None) -> Any:
        """Run the code emitted in the block only if the condition holds."""
        return self.builder.if_then(condition, likely=likely)

    @contextlib.contextmanager
    def loop(self, start: Number | int, stop: Number, step: int = 1) -> Iterator[Number]:
        """Run the code emitted in the block for ``start, start + step, ...`` below `stop`."""
        builder, first = self.builder, self.number(start, stop.kind)
        before = builder.block
        head, body, behind = (
            builder.append_basic_block(name) for name in ("head", "body", "behind")
        )
        builder.branch(head)
        builder.position_at_end(head)
        position = Number(self, stop.kind, builder.phi(stop.kind.type))
        position.value.add_incoming(first.value, before)
        builder.cbranch(position < stop, body, behind)
        builder.position_at_end(body)
        yield position
        following = builder.add(position.value, stop.kind.type(step), flags=["nsw"])
        position.value.add_incoming(following, builder.block)
        builder.branch(head)
        builder.position_at_end(behind)


def machine_code(
    *kinds: Kind, flags: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that turns a function which emits code into the compiled function.

    The emitting function gets `Code` and its arguments. The compiled one is compiled at its first call, runs
    without the interpreter lock, and takes the address (an integer) of each array.

    Args:
        kinds: kinds of the arguments: the emitting function gets an `Array` for `array_of`, else a `Number`.
        flags: see `Code`.
    """

    def decorate(write: Callable[..., None]) -> Callable[..., None]:
        """Return the function that `write` emits."""

        @functools.cache
        def compiled() -> Callable[..., None]:
            """Emit and compile it, once."""
            return _compiled(_written(write, kinds, flags), kinds)

        compiling = threading.Lock()

        @functools.wraps(write)
        def call(*arguments: float) -> None:
            """Run it on numbers and addresses."""
            with compiling:  # other threads wait instead of compiling it too
                function = compiled()
            function(*arguments)

        return call

    return decorate


_NAME = "function"


def _written(write: Callable[..., None], kinds: tuple[Kind, ...], flags: tuple[str, ...]) -> str:
    """The function in LLVM's intermediate language."""
    module = ir.Module()
    types = [ir.PointerType() if kind.is_address else kind.type for kind in kinds]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), types), _NAME)
    code = Code(ir.IRBuilder(function.append_basic_block()), flags)
    arguments: list[Array | Number] = []
    for kind, value in zip(kinds, function.args):
        if kind.is_address:
            value.add_attribute("noalias")
            arguments.append(Array(code, kind, value))
        else:
            arguments.append(Number(code, kind, value))
    write(code, *arguments)
    code.builder.ret_void()
    return str(module)


def _compiled(text: str, kinds: tuple[Kind, ...]) -> Callable[..., None]:
    """Machine code for this processor, as a function."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=_SPEED,
    )
    module = binding.parse_assembly(text)
    module.verify()
    tuning = binding.create_pipeline_tuning_options(speed_level=_SPEED)
    passes = binding.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    types = (ctypes.c_void_p if kind.is_address else kind.of_c for kind in kinds)
    function = ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(_NAME))
    function.engine = engine  # type: ignore[attr-defined]  # keeps the machine code alive
    return function
