"""Counting: compared with NumPy on ONNX Runtime's outputs; memory does not grow."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from calibrators import Histogram
from tests.command import HANGS_S
from tests.models import NETWORKS
from trtbuild.calibration import collect
from trtbuild.calibration.network import observed_network
from trtbuild.calibration.observe import Observer, observe
from trtbuild.data import Sample
from trtbuild.data.feeds import as_feed
from trtbuild.errors import DataError
from trtbuild.model import input_specs
from trtbuild.progress import with_progress
from trtbuild.quantization import watched_tensors
from trtbuild.runtime.onnxruntime import open_session

STATM = Path("/proc/self/statm")


def samples_of(network, arrays):
    specs = {spec.name: spec for spec in input_specs(network)}
    for index in range(len(next(iter(arrays.values())))):
        feeds = {name: as_feed(array[index], specs[name], "") for name, array in arrays.items()}
        yield Sample(f"[{index}]", bytes([index % 256]), lambda feeds=feeds: feeds)


@pytest.mark.parametrize("name", ["opset_13", "residual", "no_batch_axis", "dims_static_batch_4"])
@pytest.mark.parametrize("threads", [1, 3])
def test_counts_are_those_of_numpy(name, threads, tmp_path):
    network = NETWORKS[name]
    path, _ = network.save(tmp_path)
    from trtbuild import load, prepare

    model = prepare(load(path)).model
    arrays = network.arrays(12)
    tensors = watched_tensors(model)
    found = collect(observed_network(model, tensors), samples_of(model, arrays), threads=threads)
    assert found.num_samples == 12

    observed = {tensor: [] for tensor in tensors}
    for sample in samples_of(model, arrays):
        feeds = sample.load()
        if name == "dims_static_batch_4":
            feeds = {key: np.repeat(array, 4, axis=0) for key, array in feeds.items()}
        for tensor, values in run_all(model, tensors, feeds).items():
            observed[tensor].append(values)
    for tensor, histogram in found.together.histograms.items():
        values = np.concatenate([v.ravel() for v in observed[tensor]]).astype(np.float64)
        assert histogram.num_values == values.size
        assert histogram.num_zeros == np.count_nonzero(values == 0)
        # the reference runs without optimisation, and sums in another order
        close = 1e-5 * np.abs(values).max()
        assert abs(histogram.minimum - values.min()) <= close
        assert abs(histogram.maximum - values.max()) <= close
        wanted = Histogram()
        wanted.observe(values.astype(np.float32))
        exponent = int(np.ceil(np.log2(np.abs(values).max())))
        # a value may fall into the next bin when its last bit differs; none may be lost
        counts, same = histogram.fold(exponent), wanted.fold(exponent)
        assert counts.sum() == same.sum()
        assert np.abs(np.cumsum(counts) - np.cumsum(same)).max() <= max(2, values.size // 1000)


@pytest.mark.parametrize("name", ["residual", "no_batch_axis"])
@pytest.mark.parametrize("threads", [1, 3])
def test_progress_tells_of_every_sample(name, threads):
    network = NETWORKS[name]
    model, told = ir.from_proto(network.proto), []
    samples = samples_of(model, network.arrays(29))
    watched = observed_network(model, [spec.name for spec in input_specs(model)])
    given = with_progress(samples, "calibrate", 29, lambda *at: told.append(at))
    collect(watched, given, threads=threads)
    assert told == [("calibrate", done, 29) for done in range(1, 30)]


# Positive values are picked out, so the shape of `c` depends on them; `s` is a scalar.
PICKED = """<ir_version: 8, opset_import: ["" : 17]> n (float[N, K] x) => (float s, float[M] c) {
  r = Relu (x)
  s = ReduceSum <keepdims = 0> (r)
  zero = Constant <value = float {0.0}> ()
  where = Greater (x, zero)
  found = NonZero (where)
  places = Transpose (found)
  c = GatherND (x, places)
}"""


@pytest.mark.parametrize("threads", [1, 3])
def test_shapes_may_change_from_sample_to_sample(threads):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((1, 7 if number // 5 % 2 else 9)) for number in range(40)]
    feeds = [{"x": row.astype(np.float32)} for row in rows]
    samples = [Sample(str(i), bytes([i]), lambda feed=feed: feed) for i, feed in enumerate(feeds)]
    model = ir.from_proto(onnx.parser.parse_model(PICKED))
    tensors = ("x", "r", "s", "c")
    found = collect(observed_network(model, tensors), samples, threads=threads).together.histograms
    wanted = {name: Histogram() for name in tensors}
    for feed in feeds:
        for name, values in run_all(model, tensors, feed).items():
            wanted[name].observe(values)
    assert dict(found) == wanted


class Notes(Observer):
    """Records the samples and values that it was given."""

    tensors = ("x", "r")

    def __init__(self, groups=1):
        self.seen, self.together = [], []
        self._groups = groups

    def group(self, key):
        return key[0] % self._groups

    def update(self, tensors, places):
        self.together.append({self.group(place.key) for place in places})
        for row, place in enumerate(places):
            values = {name: tensors[name][row].copy() for name in self.tensors}
            self.seen.append((place.number, values))


def numbered(count):
    feeds = [{"x": np.full((1, 9 if n == 17 else 7), n - 20, np.float32)} for n in range(count)]
    return [Sample(str(n), bytes([n]), lambda feed=feed: feed) for n, feed in enumerate(feeds)]


def session_of_relu():
    return open_session(
        observed_network(ir.from_proto(onnx.parser.parse_model(PICKED)), "xr").model
    )


def test_one_observer_sees_every_sample_in_order():
    notes = Notes()
    observe(session_of_relu(), numbered(40), [notes])
    assert [number for number, _ in notes.seen] == list(range(40))
    for number, values in notes.seen:
        assert set(values["x"].ravel()) == {number - 20}
        assert set(values["r"].ravel()) == {max(number - 20, 0)}


def test_samples_of_two_groups_are_never_handed_over_together():
    observers = [Notes(groups=2) for _ in range(3)]
    observe(session_of_relu(), numbered(40), observers)
    assert sorted(number for notes in observers for number, _ in notes.seen) == list(range(40))
    assert all(len(groups) == 1 for notes in observers for groups in notes.together)


def test_an_observer_is_handed_its_own_tensors_only():
    handed = set()

    class Names(Notes):
        tensors = ("r",)

        def update(self, tensors, places):
            handed.update(tensors)

    observe(session_of_relu(), numbered(3), [Names()])
    assert handed == {"r"}


WORDS = """<ir_version: 8, opset_import: ["" : 17]> n (string[N] w, float[N, 2] x)
  => (string[N] v, float[N, 2] y) {
  v = Identity (w)
  y = Neg (x)
}"""


@pytest.mark.parametrize("tensors", [("x",), ("x", "y")])
def test_inputs_may_be_text_and_be_all_that_is_observed(tensors):
    model = ir.from_proto(onnx.parser.parse_model(WORDS))
    words = np.array(["a"], object)
    feeds = [{"w": words, "x": np.full((1, 2), i, np.float32)} for i in range(9)]
    samples = [Sample(str(i), bytes([i]), lambda feed=feed: feed) for i, feed in enumerate(feeds)]
    found = collect(observed_network(model, tensors), samples, threads=1).together.histograms
    assert set(found) == set(tensors)
    for histogram in found.values():
        assert (histogram.num_values, histogram.observed_amax) == (18, 8)


@pytest.mark.parametrize(("threads", "most_read"), [(1, 60), (3, 100_000)])
def test_a_sample_that_fails_ends_it(threads, most_read):
    # such small samples are postponed by the thousand, and each thread reads as many ahead
    model = ir.from_proto(onnx.parser.parse_model(PICKED))
    read = []

    def samples():
        for number in range(200_000):
            read.append(number)
            columns = np.nan if number == 37 else 1.0
            feed = {"x": np.full((1, 4), columns, np.float32)}
            yield Sample(f"image {number}", bytes([number % 256]), lambda feed=feed: feed)

    with pytest.raises(DataError, match="'image 37' holds NaN"):
        collect(observed_network(model, ("x", "r")), samples(), threads=threads)
    assert len(read) < most_read


def test_few_samples_that_hold_much_memory_are_read_ahead():
    """After small samples, of which thousands may be postponed, come large ones: whole photos, say."""
    calling, is_full = threading.get_ident(), threading.Event()
    read, read_until_full = [], []

    def load():
        if threading.get_ident() != calling:
            is_full.wait(HANGS_S)
        elif not is_full.is_set():
            read_until_full.append(len(read))
            is_full.set()
        return {"x": np.ones((1, 4), np.float32)}

    def samples():
        for number in range(100):
            yield Sample(f"{number}", b"\0", lambda: {"x": np.ones((1, 4), np.float32)})
        for number in range(400):
            read.append(number)
            yield Sample(f"{number}", b"\0", load, num_bytes=16 * 2**20)

    model = ir.from_proto(onnx.parser.parse_model(PICKED))
    found = collect(observed_network(model, ("x", "r")), samples(), threads=2)
    assert found.num_samples == 500
    assert read_until_full[0] < 50


@pytest.mark.parametrize("number", [0, 3, 40])
def test_infinity_within_the_network_names_sample_and_tensor(number):
    model = ir.from_proto(onnx.parser.parse_model(OVERFLOWS))
    feeds = [{"x": np.full((1, 4), 10.0 if i == number else 1.0, np.float32)} for i in range(50)]
    samples = [
        Sample(f"image {i}", bytes([i]), lambda feed=feed: feed) for i, feed in enumerate(feeds)
    ]
    place = rf"'e' holds infinity for the sample 'image {number}' \(number {number}\)"
    with pytest.raises(DataError, match=place):
        collect(observed_network(model, ("x", "e", "y")), samples, threads=1)


OVERFLOWS = """<ir_version: 8, opset_import: ["" : 17]> n (float[N, 4] x) => (float[N, 4] y) {
  ten = Constant <value = float {10.0}> ()
  t = Mul (x, ten)
  e = Exp (t)
  y = Neg (e)
}"""


DOUBLE = """<ir_version: 8, opset_import: ["" : 17]> n (double[N, 2] x) => (double[N, 2] y) {
  y = Mul (x, x)
}"""


def test_float64_too_large_for_an_engine_names_sample_and_tensor():
    model = ir.from_proto(onnx.parser.parse_model(DOUBLE))
    feeds = [{"x": np.full((1, 2), 1e30 if i == 3 else 1.0)} for i in range(6)]
    samples = [Sample(f"image {i}", bytes([i]), lambda f=feed: f) for i, feed in enumerate(feeds)]
    with pytest.raises(DataError, match="'y' holds infinity for the sample 'image 3'"):
        collect(observed_network(model, ("x", "y")), samples, threads=1)


def run_all(model, tensors, feeds):
    proto = ir.to_proto(model)
    inputs = {value.name for value in proto.graph.input}
    outputs = [tensor for tensor in tensors if tensor not in inputs]
    del proto.graph.output[:]
    for name in outputs:
        proto.graph.output.add().name = name
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = dict(zip(outputs, session.run(outputs, feeds)))
    return {**found, **{name: feeds[name] for name in inputs if name in tensors}}


@pytest.mark.skipif(not STATM.exists(), reason="reads the size of this process from /proc")
def test_memory_does_not_grow_with_the_number_of_samples():
    network = NETWORKS["dims_all_dynamic"]
    model = ir.from_proto(network.proto)
    image = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)
    (spec,) = input_specs(model)
    sizes = []

    def made():
        for index in range(600):
            sizes.append(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            feed = as_feed(image * (1 + index % 7), spec, "")
            yield Sample(str(index), bytes([index % 256]), lambda feed=feed: {"x": feed})

    collect(observed_network(model, ("x", "r", "s")), made(), threads=1)
    # 53,000 values of each sample are observed: if kept, the last 300 samples would take 64 MB. The limit
    # allows a buffer of 16 MiB that may fill up late.
    assert max(sizes[300:]) - max(sizes[:300]) < 20e6


class Sleepy:
    """A session of a slow network."""

    def __init__(self, session):
        self.session = session

    def run(self, feeds):
        time.sleep(0.06)
        return self.session.run(feeds)

    def bind(self, feeds, outputs):
        bound = self.session.bind(feeds, outputs)

        def run():
            time.sleep(0.06)
            bound()

        return run


class Counts(Observer):
    """Records at each update how many samples were read but not yet given to it."""

    tensors = ("r",)

    def __init__(self):
        self.read, self.shown, self.waiting = 0, 0, []

    def given(self, samples):
        for self.read, sample in enumerate(samples, 1):
            yield sample

    def update(self, tensors, places):
        del tensors
        self.waiting.append(self.read - self.shown)
        self.shown += len(places)


def test_samples_of_a_slow_network_do_not_wait_for_others():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] r) { r = Relu(x) }'
    )
    model = ir.from_proto(proto)
    observer, samples = Counts(), samples_of(model, {"x": np.ones((8, 4), np.float32)})
    observe(Sleepy(open_session(model)), observer.given(samples), [observer])
    assert observer.shown == 8
    assert max(observer.waiting) == 1
