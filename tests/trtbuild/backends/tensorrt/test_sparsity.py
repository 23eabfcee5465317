"""2:4 sparsity of a plan: the pattern by its definition, and the report of the builder's log or layers."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.trtbuild.backends.tensorrt import networks
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.backends.tensorrt.sparsity import sparsity_of, with_pattern
from trtbuild.runtime.tensorrt.inspector import EngineLayers, read_layers

if TYPE_CHECKING:
    from tests.tensorrt_stub.fixtures import Server
    from tests.tensorrt_stub.world import World

NO_LAYERS = EngineLayers((), detailed=False)


def network(weights: dict[str, np.ndarray]) -> ir.Model:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 8, 5, 5] x) => (float[1, 4] y) {
            c = Conv (x, conv)
            p = GlobalAveragePool (c)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, gemm)
        }"""
    )
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    model = ir.from_proto(proto)
    for node in model.graph:
        node.name = node.op_type
    return model


def two_four(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    weight = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    moved = np.moveaxis(weight, axis, -1)
    moved[..., np.arange(moved.shape[-1]) % 4 >= 2] = 0
    return weight


def by_definition(weight: np.ndarray, axis: int) -> bool:
    """Checked one by one: of every four consecutive values along `axis`, at most two are not zero."""
    moved = np.moveaxis(weight, axis, -1)
    return all(
        sum(value != 0 for value in moved[place][start : start + 4]) <= 2
        for place in itertools.product(*map(range, moved.shape[:-1]))
        for start in range(0, moved.shape[-1], 4)
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_pattern_is_that_of_the_input_channels(seed: int) -> None:
    conv = two_four((4, 8, 3, 3), 1, seed)
    gemm = two_four(
        (4, 4), 0 if seed % 2 else 1, seed
    )  # along the outputs, the pattern does not count
    if seed == 3:
        conv[1, 2, 0, 0] = 1.0
    for node in network({"conv": conv, "gemm": gemm}).graph:
        wanted = {"Conv": by_definition(conv, 1), "Gemm": by_definition(gemm, 1)}
        assert with_pattern(node) == wanted.get(node.op_type)


def test_the_log_tells_what_could_be_and_what_was_taken() -> None:
    model = network({"conv": two_four((4, 8, 3, 3), 1), "gemm": np.ones((4, 4), np.float32)})
    log = [
        "(Sparsity) Layers eligible for sparse math: Conv + Relu, Gemm",
        "(Sparsity) TRT inference plan picked sparse implementation for layers: Conv + Relu",
    ]
    found = sparsity_of(model, log, NO_LAYERS)
    assert (found.with_pattern, found.num_weighted) == (("Conv",), 2)
    assert (found.eligible, found.picked, found.seen_in) == (
        ("Conv + Relu", "Gemm"),
        ("Conv + Relu",),
        "log",
    )
    assert "sparse kernels were chosen for 1: Conv + Relu" in str(found)
    none = sparsity_of(model, [log[0], log[1].partition("Conv")[0]], NO_LAYERS)
    assert none.picked == ()
    assert "the zeros gain no time" in str(none)
    unknown = sparsity_of(model, [], NO_LAYERS)
    assert unknown.picked is None
    assert "cannot be seen" in str(unknown)


def test_the_layers_tell_where_the_log_does_not() -> None:
    def layer(name: str, tactic: str, sparse: int) -> dict[str, Any]:
        return {"Name": name, "LayerType": "CaskConvolution", "TacticName": tactic,
                "HasSparseWeights": sparse, "Inputs": [], "Outputs": []}  # fmt: skip

    entries = [
        layer("a", "sm80_xmma_fprop_sparse_conv_int8", 1),
        layer("b", "sm80_xmma_fprop_implicit_gemm_int8", 1),
        layer("c", "sm80_xmma_fprop_implicit_gemm_int8", 0),
    ]
    layers = read_layers(json.dumps({"Layers": entries}))
    model = network(
        {"conv": np.ones((4, 8, 3, 3), np.float32), "gemm": np.ones((4, 4), np.float32)}
    )
    found = sparsity_of(model, [], layers)
    assert (found.picked, found.seen_in, found.with_pattern) == (("a",), "layers", ())


def builds_sparse(world: World) -> list[Any]:
    request = networks.request(networks.calibrated(), None, quantization="explicit", sparse=True)
    engine = TensorRTBackend().build(request)
    return [list(engine.notes), dict(engine.details["sparsity"])]


def test_a_build_says_what_became_of_the_zeros(tensorrt: Server) -> None:
    notes, sparsity = tensorrt.value(builds_sparse)
    assert any(note.startswith("2:4: ") for note in notes)
    assert sparsity["num_weighted"] > 0
    assert sparsity["with_pattern"] == []
    assert sparsity["picked"] == []
    assert sparsity["seen_in"] == "layers"
