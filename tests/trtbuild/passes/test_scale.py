"""Large networks: weights are not copied, and cost grows linearly with the nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.trtbuild.passes.networks import network
from tests.work import num_calls
from trtbuild.model import outside_weights, read_unchanged, write_model
from trtbuild.model.writing import without_weights
from trtbuild.passes import OptimizeOptions, optimize


def chain(blocks):
    steps, value = [], "x"
    for place in range(blocks):
        steps.append(f"a{place} = Conv({value}, w) b{place} = Mul(a{place}, s)")
        steps.append(f"c{place} = Identity(b{place}) d{place} = Tanh(c{place})")
        value = f"d{place}"
    body = " ".join(steps)
    text = f"t (float[1,2,4,4] x) => (float[1,2,4,4] {value}) {{ {body} }}"
    return network(text, {"w": (2, 2, 1, 1), "s": (1, 2, 1, 1)})


def calls_of_optimize(model):
    return num_calls(optimize, model, OptimizeOptions(check=False))


def test_cost_grows_with_the_nodes():
    calls_of_optimize(chain(2))  # imports and caches
    # four times the nodes; quadratic work would be sixteen times as much
    assert calls_of_optimize(chain(400)) < 5 * calls_of_optimize(chain(100))


@pytest.mark.nightly
def test_cost_grows_with_many_nodes():
    assert calls_of_optimize(chain(12_500)) < 15 * calls_of_optimize(chain(1_250))


def test_taking_weights_out_leaves_the_model_as_it_was():
    model = network(
        "t (float[1,64] x) => (float[1,64] y) { m = MatMul(x, w) y = Add(m, b) }",
        {"b": (64,), "w": (64, 64)},
    )
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    detached = without_weights(model)
    assert list(detached.weights) == ["w"]
    assert [value.name for value in detached.proto.graph.input] == ["x", "w"]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert not model.graph.initializers["w"].is_graph_input()


def test_mapped_weights_are_not_read_into_memory(tmp_path, monkeypatch):
    """One matrix is changed by a fold; the other stays the mapped region of the source's file."""
    monkeypatch.setattr(outside_weights, "MAPPED_LIMIT", 1 << 22)
    text = (
        "t (float[n,1024] x) => (float[n,1024] y) "
        "{ a = MatMul(x, w1) b = Mul(a, s) c = Relu(b) d = MatMul(c, w2) y = Identity(d) }"
    )
    weights = {"w1": (1024, 1024), "w2": (1024, 1024), "s": np.array(0.5, np.float32)}
    ir.save(network(text, weights), tmp_path / "in.onnx", external_data="in.data")
    result = optimize(read_unchanged(tmp_path / "in.onnx"))
    assert not result.log.rolled_back
    held = [value.const_value for value in result.model.graph.initializers.values()]
    mapped = [tensor for tensor in held if isinstance(tensor, ir.ExternalTensor)]
    folded = [tensor for tensor in held if not isinstance(tensor, ir.ExternalTensor)]
    assert [tensor.name for tensor in mapped] == ["w2"]
    assert all(isinstance(tensor.raw, np.memmap) for tensor in folded)
    write_model(result.model, tmp_path / "out.onnx")
    again = read_unchanged(tmp_path / "out.onnx")
    assert sum(value.const_value.nbytes for value in again.graph.initializers.values()) == 2 << 22
