"""Random networks, optimised without the safety net and compared by independent code."""

from __future__ import annotations

import contextlib
import signal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, reject, seed, settings
from hypothesis import strategies as st

from tests.trtbuild.passes.random_graphs import BATCH, grow
from trtbuild.passes import OptimizeOptions, optimize

PARTS = 40  # of the nightly run: each part shows its name while it runs, and CPUs can share them
COUNT = 250  # networks per part; some 20 ms of CPU each
LONGEST = 60  # seconds after which one network counts as hanging


@contextlib.contextmanager
def at_most(seconds):
    """Raise TimeoutError in the block when it takes longer (where the system has such a timer)."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(number, frame):
        raise TimeoutError(f"one network takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def networks(draw):
    return grow(lambda options: draw(st.sampled_from(list(options))), draw(st.integers(0, 2**16)))


def open_unoptimised(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def feeds_of(model, session, seed):
    """Draw the network's inputs; overridable initialisers are overridden."""
    random = np.random.default_rng(seed)
    feeds = {}
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    for info in inputs:
        shape = [BATCH if isinstance(dim, str) else dim for dim in info.shape]
        if info.type == "tensor(bool)":
            feeds[info.name] = np.array(seed % 2 == 0)
        else:
            kind = np.float16 if info.type == "tensor(float16)" else np.float32
            feeds[info.name] = random.standard_normal(shape).astype(kind)
    return feeds


def tolerance(model, wanted):
    """Relative to the largest value of an output.

    Folding moves one rounding (2^-24 or 2^-11) of each of up to 12 steps, and sums of up to some
    hundred products amplify it: 12 * 100 * 2^-24 is below 1e-4; half floats leave 2^-11 * 12 * 4.
    Rounding to int8 steps of 1/16 may land one step away.
    """
    ops = {node.op_type for node in model.graph.node}
    if wanted.dtype == np.float16:
        return 0.025
    return 0.2 if "QuantizeLinear" in ops else 2e-4


def check(model):
    with at_most(LONGEST):
        check_one(model)


def check_one(model):
    try:
        session = open_unoptimised(model)
        samples = [
            (feeds := feeds_of(model, session, seed), session.run(None, feeds)) for seed in (0, 1)
        ]
    except Exception:  # noqa: BLE001 - ONNX Runtime has no kernel for it, or no such broadcast
        reject()
    result = optimize(ir.from_proto(model), OptimizeOptions(check=False))
    optimised = ir.to_proto(result.model)
    onnx.checker.check_model(optimised, full_check=True)
    assert not result.log.undoing
    assert not result.log.capped
    for part in ("input", "output"):
        assert list(getattr(model.graph, part)) == list(getattr(optimised.graph, part))
    again = open_unoptimised(optimised)
    for feeds, wanted in samples:
        for name, first, second in zip(
            [info.name for info in session.get_outputs()], wanted, again.run(None, feeds)
        ):
            assert first.dtype == second.dtype
            assert first.shape == second.shape, name
            a, b = first.astype(np.float64), second.astype(np.float64)
            if not np.isfinite(a).all():
                reject()  # it overflows, and where exactly depends on rounding
            limit = tolerance(model, first) * max(1.0, float(np.max(np.abs(a), initial=0.0)))
            assert np.max(np.abs(a - b), initial=0.0) <= limit, f"{name}: {fired(result)}"
    rerun = optimize(ir.from_proto(optimised), OptimizeOptions(check=False))
    assert not rerun.log.fired, fired(rerun)


def fired(result):
    return {name: [note.text for note in notes] for name, notes in result.log.fired.items()}


def try_networks(number, count):
    """Check `count` random networks, the same in every run."""
    run = settings(max_examples=count, suppress_health_check=list(HealthCheck))
    seed(number)(run(given(networks())(check)))()


def test_random_networks_keep_their_answers():
    try_networks(0, 150)


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(1, PARTS + 1))
def test_many_random_networks_keep_their_answers(number):
    try_networks(number, COUNT)
