"""Every operator's gradient against central differences in float64.

The truth is ONNX's reference implementation in NumPy: <v, f(x + h d) - f(x - h d)> / 2h for random d, whose
error is of h^2 (a third derivative of some tens times 1e-12) and of 1e-16 / h. The backward network runs in
float32: some hundred additions of values near one, each within 6e-8.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import onnx.parser
import onnx.reference
import onnx.reference.op_run
import pytest

from tests.trtbuild.gradients.cases import CASES, Case
from trtbuild.errors import ExecutionError
from trtbuild.gradients import backward_network
from trtbuild.gradients.rules import RULES
from trtbuild.runtime.onnxruntime import Execution, open_session

STEP = 1e-6
TOLERANCE = 1e-4
DIMS = ("static", "dynamic")


class Erf(onnx.reference.op_run.OpRun):
    """The reference's own returns float32."""

    def _run(self, x):
        return (np.vectorize(math.erf)(x),)


class Gelu(onnx.reference.op_run.OpRun):
    """The reference's own uses its Erf."""

    def _run(self, x, approximate=None):
        if approximate == "tanh":
            return (x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,)
        return (x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2,)


class LRN(onnx.reference.op_run.OpRun):
    """The reference's own loops over as many channels as there are samples."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        channels = range(x.shape[1])
        windows = (slice(max(c - (size - 1) // 2, 0), c + size // 2 + 1) for c in channels)
        squares = np.stack([(x[:, window] ** 2).sum(1) for window in windows], 1)
        return (x / (bias + alpha / size * squares) ** beta,)


def differences(
    network: onnx.reference.ReferenceEvaluator,
    values: dict[str, np.ndarray],
    v: np.ndarray,
    direction: dict,
) -> float:
    ahead, back = (
        run(network, {name: x + sign * STEP * direction[name] for name, x in values.items()})
        for sign in (1.0, -1.0)
    )
    return float((v * (ahead - back)).sum() / (2 * STEP))


def run(network: onnx.reference.ReferenceEvaluator, values: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(network.run(None, values)[0], np.float64)


def gradients(case: Case, values: dict[str, np.ndarray], v: np.ndarray, *, dynamic: bool) -> dict:
    backward = backward_network(case.model(dynamic=dynamic), case.inputs)
    assert not backward.unreached
    assert not backward.incomplete
    session = open_session(backward.model, Execution.REFERENCE, threads=1)
    feeds = {name: x.astype(np.float32) for name, x in values.items()}
    found = session.run({**feeds, backward.seeds["y"]: v.astype(np.float32)})
    return {name: found[gradient] for name, gradient in backward.gradients.items()}


@functools.cache
def runs(opset):
    """Whether the installed ONNX Runtime, perhaps the lowest declared version, supports this opset."""
    head = f'<ir_version: 10, opset_import: ["": {opset}]>'
    text = head + " n (float[1] x) => (float[1] y) { y = Identity (x) }"
    content = onnx.parser.parse_model(text).SerializeToString()
    try:
        open_session(content, Execution.REFERENCE)
    except ExecutionError:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_limit_of_differences(name):
    case = CASES[name]
    if not runs(case.opset):
        pytest.skip(f"this ONNX Runtime does not run opset {case.opset}")
    network = onnx.reference.ReferenceEvaluator(case.proto(np.float64), new_ops=[Erf, Gelu, LRN])
    values = {n: x.astype(np.float32).astype(np.float64) for n, x in case.values().items()}
    rng = np.random.default_rng(2)
    v = rng.normal(size=run(network, values).shape).astype(np.float32).astype(np.float64)
    found = {what: gradients(case, values, v, dynamic=what == "dynamic") for what in DIMS}
    for varied, x in values.items():
        assert all(one[varied].shape == x.shape for one in found.values())
        for _ in range(3):
            d = {n: rng.normal(size=y.shape) * (n == varied) for n, y in values.items()}
            wanted = differences(network, values, v, d)
            for what, one in found.items():
                products = one[varied] * d[varied]
                error = abs(float(products.sum()) - wanted)
                assert error <= TOLERANCE * (np.abs(products).sum() + 1.0), what


def test_every_rule_has_a_case():
    used = {node.op_type for case in CASES.values() for node in case.proto(np.float32).graph.node}
    assert set(RULES) <= used | {"Conv", "ConvTranspose"}
