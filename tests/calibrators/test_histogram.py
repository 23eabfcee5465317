"""The histogram: exact counts, exact edges, the same for any order or portions of the values."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from calibrators import Histogram
from calibrators.errors import ObservationError
from calibrators.grid import lower_edges

STATM = Path("/proc/self/statm")
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ANY_FLOATS = st.floats(width=32)
TENSORS = stnp.arrays(np.float32, st.integers(0, 300), elements=FLOATS)
TENSORS_WITH_ALL = stnp.arrays(np.float32, st.integers(0, 300), elements=ANY_FLOATS)


def histogram_of(*portions: np.ndarray) -> Histogram:
    histogram = Histogram()
    for portion in portions:
        histogram.observe(portion)
    return histogram


@given(TENSORS)
def test_each_value_is_counted_in_the_bin_that_holds_it(values: np.ndarray) -> None:
    numbers, counts = histogram_of(values).magnitudes()
    nonzero = np.abs(values[values != 0]).astype(np.float64)
    edges = np.append(lower_edges(numbers), lower_edges(numbers + 1))
    for number, count in zip(numbers, counts):
        lower, upper = lower_edges(np.array([number, number + 1]))
        assert count == np.count_nonzero((nonzero >= lower) & (nonzero < upper))
    assert counts.sum() == nonzero.size
    assert np.all(np.isfinite(edges))


@given(TENSORS)
def test_signs_are_kept_apart(values: np.ndarray) -> None:
    numbers, counts = histogram_of(values).signed_bins()
    assert counts[numbers >= 2**18].sum() == np.count_nonzero(values < 0)
    assert counts[numbers < 2**18].sum() == np.count_nonzero(values > 0)


@given(TENSORS)
def test_extremes_and_zeros_are_exact(values: np.ndarray) -> None:
    histogram = histogram_of(values)
    assert histogram.num_values == values.size
    assert histogram.num_zeros == np.count_nonzero(values == 0)
    assert histogram.minimum == (values.min() if values.size else 0)
    assert histogram.maximum == (values.max() if values.size else 0)
    assert histogram.observed_amax == (np.abs(values).max() if values.size else 0)


@given(TENSORS_WITH_ALL, st.data())
def test_order_and_portions_of_the_values_do_not_matter(
    values: np.ndarray, data: st.DataObject
) -> None:
    whole = histogram_of(values)
    order = data.draw(st.permutations(range(values.size)))
    cut = data.draw(st.integers(0, values.size))
    shuffled = values[list(order)]
    portions = histogram_of(shuffled[:cut], shuffled[cut:])
    one, other = histogram_of(shuffled[:cut]), histogram_of(shuffled[cut:])
    assert portions == whole
    assert one.merge(other) == whole
    assert other.merge(one) == whole


@given(TENSORS_WITH_ALL, TENSORS_WITH_ALL, TENSORS_WITH_ALL)
@settings(max_examples=30)
def test_merging_is_associative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    one, two, three = map(histogram_of, (a, b, c))
    assert one.merge(two).merge(three) == one.merge(two.merge(three))


def test_merging_leaves_the_parts_alone() -> None:
    one, other = histogram_of(np.array([1.0])), histogram_of(np.array([2.0]))
    one.merge(other)
    assert one == histogram_of(np.array([1.0]))
    assert one != other


@given(TENSORS_WITH_ALL)
def test_non_finite_values_are_counted_apart(values: np.ndarray) -> None:
    histogram = histogram_of(values)
    finite = values[np.isfinite(values)]
    assert histogram.num_nan == np.count_nonzero(np.isnan(values))
    assert histogram.num_inf == np.count_nonzero(np.isinf(values))
    assert histogram.num_values == finite.size
    assert histogram.observed_amax == (np.abs(finite).max() if finite.size else 0)
    assert histogram.magnitudes()[1].sum() == np.count_nonzero(finite)


def test_non_finite_values_beyond_a_16_bit_counter_are_counted() -> None:
    values = np.full(200_000, np.nan, np.float32)
    values[:70_000] = np.inf
    histogram = histogram_of(values, np.ones(3))
    assert (histogram.num_nan, histogram.num_inf) == (130_000, 70_000)
    assert (histogram.num_values, histogram.observed_amax) == (3, 1.0)
    assert histogram.signed_bins()[1].tolist() == [3]


@given(TENSORS_WITH_ALL)
def test_a_pickled_histogram_is_the_same(values: np.ndarray) -> None:
    histogram = histogram_of(values)
    assert pickle.loads(pickle.dumps(histogram)) == histogram


@pytest.mark.parametrize("exponent", [-100, -20, 0, 3, 128])
def test_folding_is_counting_in_equal_bins(exponent: int) -> None:
    rng = np.random.default_rng(1)
    end = 2.0**exponent
    values = (rng.uniform(-1.5, 1.5, 20_000) * end * rng.choice([1, 1e-2, 1e-5], 20_000)).clip(
        -3e38, 3e38
    )
    values = np.append(values, np.zeros(17)).astype(np.float32)
    histogram = histogram_of(values)
    # float64 holds float32 times a power of two exactly, so this floor is exact too
    bins = np.floor(np.abs(values.astype(np.float64)) * (2048 / end)).astype(np.int64)
    assert np.array_equal(histogram.fold(exponent), np.bincount(bins[bins < 2048], minlength=2048))


def test_the_end_of_the_range_belongs_to_it_when_nothing_is_larger() -> None:
    values = np.array([1.0, 1.0, 0.25], np.float32)
    assert histogram_of(values).fold(0)[[2047, 512]].tolist() == [2, 1]
    assert histogram_of(values, np.array([1.5])).fold(0).sum() == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16, ">f4"])
def test_other_float_types_count_as_their_float32_values(dtype: object) -> None:
    values = np.random.default_rng(2).standard_normal(1000).astype(dtype)  # type: ignore[arg-type]
    assert histogram_of(values) == histogram_of(values.astype(np.float32))


def test_a_float64_too_large_for_float32_is_infinite() -> None:
    histogram = histogram_of(np.array([1e300, 1.0]))
    assert (histogram.num_inf, histogram.observed_amax) == (1, 1.0)


def test_strided_and_transposed_views_are_counted_whole() -> None:
    values = np.random.default_rng(3).standard_normal((6, 7, 8)).astype(np.float32)
    plain = histogram_of(values[:, ::2].copy())
    assert histogram_of(values[:, ::2]) == plain
    assert histogram_of(values.transpose(2, 0, 1)) == histogram_of(values)
    readonly = values.copy()
    readonly.flags.writeable = False
    assert histogram_of(readonly) == histogram_of(values)


def test_empty_arrays_and_scalars() -> None:
    assert histogram_of(np.zeros((0, 3), np.float32)) == Histogram()
    assert histogram_of(np.float32(3).reshape(())).maximum == 3
    assert Histogram().observed_amax == 0


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, object])
def test_other_types_are_refused(dtype: type) -> None:
    with pytest.raises(ObservationError, match="no range to calibrate"):
        histogram_of(np.zeros(3, dtype))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_counts_for_itself() -> None:
    histogram = histogram_of(np.ones(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads do nothing here
        child = os.fork()
    if child == 0:
        histogram.observe(np.ones(7))
        os._exit(0)
    os.waitpid(child, 0)
    assert histogram == histogram_of(np.ones(5))


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.5, -1.5, 3e-9]), st.integers(1, 150_000)), max_size=6
    )
)
@settings(max_examples=25)
def test_many_values_in_one_bin_are_all_counted(runs: list[tuple[float, int]]) -> None:
    # a counter of the table has 16 bits; larger counts are carried
    histogram = histogram_of(*(np.full(count, value, np.float32) for value, count in runs))
    wanted = {value: sum(count for other, count in runs if other == value) for value, _ in runs}
    assert histogram.num_zeros == wanted.pop(0.0, 0)
    numbers, counts = histogram.signed_bins()
    bits = np.array(sorted(wanted), np.float32).view(np.uint32) >> 13
    in_order = [count for _, count in sorted(zip(bits, (wanted[v] for v in sorted(wanted))))]
    assert (numbers.tolist(), counts.tolist()) == (sorted(bits.tolist()), in_order)


@pytest.mark.parametrize("before", [2**16 - 1, 2**32 - 3, 2**32 + 5, 2**60])
def test_counts_of_any_size(before) -> None:
    values = np.array([1.0, 1.0, -3.0, 0.0, 1e-30], np.float32)
    bin_of_one = np.array([np.float32(1.0).view(np.uint32) >> 13], np.int64)
    histogram = Histogram.from_bins(
        bin_of_one, np.array([before]), num_zeros=0, num_nan=0, num_inf=0, minimum=1.0, maximum=1.0
    )
    merged = histogram.merge(histogram_of(values))
    assert merged == histogram_of(values).merge(histogram)
    histogram.observe(values)
    assert histogram == merged
    assert histogram.num_values == before + 5
    assert histogram.num_zeros == 1
    assert histogram.magnitudes()[1].tolist() == [1, before + 2, 1]
    assert int(histogram.fold(2).sum()) == before + 5
    assert pickle.loads(pickle.dumps(histogram)) == histogram
    assert histogram.observed_amax == 3


@pytest.mark.parametrize("num", [1, 70_000])
def test_every_sign_and_size_is_counted(num) -> None:
    # long arrays are counted by another path, for the caches, than short ones
    for values in (np.full(num, -2.5), np.full(num, -0.0), np.linspace(-1e38, -1e-38, num)):
        array = values.astype(np.float32)
        histogram = histogram_of(array)
        assert (histogram.minimum, histogram.maximum) == (array.min(), array.max())
        assert histogram.num_zeros == np.count_nonzero(array == 0)
        assert histogram.magnitudes()[1].sum() == np.count_nonzero(array)


_COUNT_WITHOUT_VECTORS = """
import pickle, sys
from llvmlite import binding
features = binding.get_host_cpu_features()
features["avx2"] = False
binding.get_host_cpu_features = lambda: features
from calibrators import Histogram
histogram = Histogram()
for values in pickle.load(sys.stdin.buffer):
    histogram.observe(values)
pickle.dump(histogram, sys.stdout.buffer)
"""


_COUNT_FIRST_IN_MANY_THREADS = """
import sys, threading
import numpy as np
from calibrators import Histogram
sys.setswitchinterval(1e-6)
values = np.where(np.arange(4096) % 3, np.linspace(-3, 3, 4096), 0).astype(np.float32)
histograms = [Histogram() for _ in range(8)]
start = threading.Barrier(len(histograms))

def observe(histogram):
    start.wait()
    histogram.observe(values)

threads = [threading.Thread(target=observe, args=(one,)) for one in histograms]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
later = Histogram()
later.observe(values)
print(sum(one != later for one in histograms))
"""


def test_threads_that_are_the_first_to_count_count_the_same() -> None:
    def wrong() -> str:
        command = [sys.executable, "-c", _COUNT_FIRST_IN_MANY_THREADS]
        return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()

    # two must meet, as they do in more than half of these
    assert [wrong() for _ in range(6)] == ["0"] * 6


def test_a_processor_without_vectors_counts_the_same() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 70_001)).astype(np.float32)
    values[rng.random(values.shape) < 0.4] = 0
    portions = [values[0], np.abs(values[1]), -np.abs(values[2]), np.float32([-0.0, np.nan, 1e-40])]
    found = subprocess.run(
        [sys.executable, "-c", _COUNT_WITHOUT_VECTORS],
        input=pickle.dumps(portions),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert pickle.loads(found) == histogram_of(*portions)


@pytest.mark.skipif(not STATM.exists(), reason="reads the size of this process from /proc")
def test_memory_grows_only_with_the_octaves_in_use() -> None:
    def size() -> int:  # now: the largest size so far would be that of other tests
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    values = np.random.default_rng(5).standard_normal(100_000).astype(np.float32)
    histogram_of(values)
    before = size()
    kept = [histogram_of(values) for _ in range(100)]
    # whole tables would be 500 MiB
    assert len(kept) == 100
    assert size() - before < 50 << 20


def test_counting_makes_no_copy_of_a_float32_tensor() -> None:
    values = np.random.default_rng(4).standard_normal((64, 1024)).astype(np.float32)
    histogram = histogram_of(values)  # compiles
    tracemalloc.start()
    histogram.observe(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 8
