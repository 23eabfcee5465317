"""Compiled code computes the same numbers as NumPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from calibrators.machine_code import (
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    Variable,
    array_of,
    machine_code,
    vector_of,
)
from calibrators.output_error import error_products

NUMPY = {
    FLOAT32: np.float32,
    FLOAT64: np.float64,
    INT32: np.int32,
    INT64: np.int64,
    UINT16: np.uint16,
    UINT32: np.uint32,
}
WHOLE = {INT32: "int32", INT64: "int64", UINT16: "uint16", UINT32: "uint32"}


def each(write, kind, to=None):
    """Compile a function of two arrays of one kind that computes `write` of each pair, in the kind `to`."""
    to = to or kind

    @machine_code(array_of(kind), array_of(kind), array_of(to), INT64)
    def loop(code, first, second, found, size):
        with code.loop(0, size) as i:
            found[i] = write(code, first[i], second[i])

    def call(first, second):
        found = np.empty(len(first), NUMPY[to])
        loop(first.ctypes.data, second.ctypes.data, found.ctypes.data, len(first))
        return found

    return call


OPERATORS = {
    "+": (lambda _, a, b: a + b, lambda a, b: a + b),
    "-": (lambda _, a, b: a - b, lambda a, b: a - b),
    "*": (lambda _, a, b: a * b, lambda a, b: a * b),
    "&": (lambda _, a, b: a & b, lambda a, b: a & b),
    "^": (lambda _, a, b: a ^ b, lambda a, b: a ^ b),
    ">>": (lambda _, a, b: a >> 3, lambda a, b: a >> a.dtype.type(3)),
    "smaller": (lambda _, a, b: a.smaller(b), np.minimum),
    "larger": (lambda _, a, b: a.larger(b), np.maximum),
    "larger than 7": (lambda _, a, b: a.larger(7), lambda a, b: np.maximum(a, a.dtype.type(7))),
    "equals": (
        lambda code, a, b: code.choose(a.equals(b), a, 5),
        lambda a, b: np.where(a == b, a, a.dtype.type(5)),
    ),
}
COMPILED = {
    (kind, name): each(write, kind) for kind in WHOLE for name, (write, _) in OPERATORS.items()
}


@pytest.mark.parametrize("kind", WHOLE, ids=WHOLE.values())
@given(data=st.data())
def test_integer_operators_equal_numpys(kind, data):
    pairs = stnp.arrays(NUMPY[kind], st.shared(st.integers(0, 40), key="size"))
    first, second = data.draw(pairs), data.draw(pairs)
    for name, (_, plain) in OPERATORS.items():
        assert np.array_equal(COMPILED[kind, name](first, second), plain(first, second)), name


@pytest.mark.parametrize("kind", [FLOAT32, FLOAT64], ids=["float32", "float64"])
def test_float_operators_equal_numpys(kind):
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=1001).astype(NUMPY[kind]) * 4 for _ in range(2))
    first[:4] = 0.5, 1.5, -2.5, -0.5
    for write, plain in (
        (lambda _, a, b: a + b * 3, lambda a, b: a + b * a.dtype.type(3)),
        (lambda _, a, b: a / b - a, lambda a, b: a / b - a),
        (lambda _, a, b: a.rounded(), lambda a, b: np.rint(a)),
        (lambda _, a, b: a.magnitude(), lambda a, b: np.abs(a)),
        (lambda _, a, b: a.smaller(b).larger(-1), lambda a, b: np.maximum(np.minimum(a, b), -1)),
    ):
        assert np.array_equal(each(write, kind)(first, second), plain(first, second))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((UINT16, INT64), (UINT32, INT64), (UINT32, INT32), (INT32, INT64), (INT64, UINT16)),
        *((FLOAT32, FLOAT64), (FLOAT64, FLOAT32), (FLOAT64, INT64), (INT64, FLOAT64)),
        *((UINT32, FLOAT64), (FLOAT64, UINT32)),
    ],
)
def test_a_number_of_one_kind_becomes_one_of_another(before, after):
    values = np.array([0, 1, 2.9, 700, 65535, -1, -2.9, -70_000, 2**31 - 1, -(2**31)])
    if not (before.signed and after.signed):
        values = np.abs(values)
    given_ = values.astype(np.int64 if not before.is_float else NUMPY[before]).astype(NUMPY[before])
    found = each(lambda _, a, b: a.to(after), before, after)(given_, given_)
    assert np.array_equal(found, given_.astype(NUMPY[after]))


def test_loops_conditions_and_variables():
    @machine_code(array_of(INT64), INT64, INT64, array_of(INT64))
    def write(code, values, start, stop, found):
        odd, steps = (Variable(code, code.number(0, INT64)) for _ in range(2))
        with code.loop(start, stop, 2) as i, code.loop(0, i) as j:
            steps.set(steps.get() + 1)
            with code.when((values[j] & 1).equals(1)):
                odd.set(odd.get() + values[j])
        found[code.number(0, INT64)], found[code.number(1, INT64)] = odd.get(), steps.get()

    values, found = np.arange(10), np.empty(2, np.int64)
    for start, stop in ((0, 10), (3, 4), (5, 5), (6, 2)):
        write(values.ctypes.data, start, stop, found.ctypes.data)
        steps = [j for i in range(start, stop, 2) for j in range(i)]
        assert found.tolist() == [sum(j for j in steps if j % 2), len(steps)]


def test_an_address_in_memory_leads_to_numbers():
    @machine_code(array_of(INT64), array_of(UINT16))
    def write(code, addresses, found):
        first = code.number(0, INT64)
        values = code.array_at(addresses[first], UINT16)
        values.touch(first)
        found[first] = values[first + 2]

    values, found = np.array([3, 5, 7], np.uint16), np.empty(1, np.uint16)
    write(np.array([values.ctypes.data]).ctypes.data, found.ctypes.data)
    assert found[0] == 7


WORDS = st.integers(0, 2**32 - 1)


@given(
    stnp.arrays(np.uint32, 8, elements=WORDS),
    stnp.arrays(np.uint8, 8, elements=st.integers(0, 7)),
    WORDS,
)
def test_a_vector_is_taken_apart_and_put_in_order(values, places, limit):
    @machine_code(array_of(UINT32), array_of(UINT8), UINT32, array_of(UINT32), array_of(INT64))
    def write(code, values, places, limit, found, seen):
        first, splat = code.number(0, INT64), code.number(7, vector_of(UINT32, 8))
        vector = values.vector(first + 1, 8)  # at no multiple of its size
        order = places.vector(first, 8).to(vector_of(UINT32, 8))
        found.put_vector(first + 1, (vector ^ splat).in_order(order))
        largest = Variable(code, code.number(0, UINT32))
        for one in vector.lanes():
            largest.set(largest.get().larger(one))
        chosen = code.bits_of(vector.smaller(splat).equals(vector))
        seen[first], seen[first + 1] = largest.get().to(INT64), chosen.to(INT64)
        seen[first + 2] = (limit & 0xFFFFFFFF).num_ones().to(INT64)

    found, seen = np.zeros(9, np.uint32), np.zeros(3, np.int64)
    held = np.concatenate([np.zeros(1, np.uint32), values])
    write(held.ctypes.data, places.ctypes.data, limit, found.ctypes.data, seen.ctypes.data)
    assert found[1:].tolist() == (values ^ 7)[places].tolist()
    bits = sum(1 << lane for lane in range(8) if values[lane] <= 7)
    assert seen.tolist() == [values.max(), bits, limit.bit_count()]


def test_threads_may_call_first_at_the_same_time_and_one_compiles():
    written = []

    @machine_code(array_of(INT64), INT64)
    def add(code, sums, own):
        written.append(code)
        with code.loop(0, own) as i:
            sums[own] = sums[own] + i

    sums = np.zeros(8, np.int64)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda own: add(sums.ctypes.data, own), range(8)))
    assert sums.tolist() == [sum(range(own)) for own in range(8)]
    assert len(written) == 1


@given(st.integers(0, 5000), st.integers(1, 5), st.integers(0, 1000))
@example(162, 1, 589)  # 101.499999 steps
def test_products_of_errors_are_those_of_rounding(size, num_scales, seed):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=(2, size)).astype(np.float32)
    amaxes = rng.uniform(0.1, 3, num_scales).astype(np.float32)
    products, squares = error_products(x, g, amaxes)
    for amax, product, square in zip(amaxes, products, squares):
        scale = np.float32(amax / np.float32(127))
        steps = x * (np.float32(1) / scale)
        rounded = np.clip(np.rint(steps), -128, 127) * scale
        terms = (g * (rounded - x)).astype(np.float64)
        # Half way between two steps, the last bit of a product decides to which one a value goes: of up to
        # 128 steps that bit is 8e-6, and larger values are clipped.
        half_way = np.abs(steps - np.floor(steps) - 0.5) < 1e-4
        other_step = float(np.abs(g * scale)[half_way].sum())
        assert product == pytest.approx(terms.sum(), rel=1e-3, abs=1e-4 + other_step)
        assert square == pytest.approx((terms**2).sum(), rel=1e-4, abs=1e-7)
