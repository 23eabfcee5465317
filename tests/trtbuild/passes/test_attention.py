"""Attention written out, with masks and causal, and the forms left unchanged."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from calibrators import Calibration, TensorRange
from tests.trtbuild.passes.networks import network, ops, optimized
from trtbuild.artifact import Artifact
from trtbuild.model import name_nodes
from trtbuild.passes import OptimizeOptions, optimize
from trtbuild.plan import PlacementRequest
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.target import FOR_RTX

zeros_where_nothing_is_seen = pytest.mark.skipif(
    ort.__version__.startswith("1.23."),
    reason="ONNX Runtime 1.23 gives NaN for a query that sees no key, so the pass is undone there",
)

WRITTEN_OUT = {"Transpose": 1, "MatMul": 2, "Mul": 1, "Softmax": 1}
ZEROS = {"ReduceMax": 1, "LessOrEqual": 1, "Where": 1}  # for queries that see no key
SHARED = {"Unsqueeze": 2, "Expand": 2, "Reshape": 2}


def attention(attributes="", mask="", keys=5, heads=2, inputs="q, k, v", opset=23):
    """A network of one Attention over four queries with heads of 16; `mask` is a declaration."""
    declared = (
        f"float[b, 2, 4, 16] q, float[b, {heads}, {keys}, 16] k, float[b, {heads}, {keys}, 16] v"
    )
    inputs, weights = f"{inputs}, m" if mask else inputs, ""
    if mask.startswith("bool"):
        weights = f"<{mask} m = {{1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0}}>"
    elif mask:
        declared = f"{declared}, {mask} m"
    text = f"""<ir_version: 11, opset_import: ["" : {opset}]>
        net ({declared}) => (float[b, 2, 4, 16] y) {weights} {{ y = Attention <{attributes}> ({inputs}) }}"""
    return ir.from_proto(onnx.parser.parse_model(text.replace(" <>", "")))


def reference(feeds, *, scale=0.25, hidden=None):
    """softmax(scale Q K^T + mask) V in float64; `hidden` marks the keys hidden from each query."""
    q, k, v = (feeds[name].astype(np.float64) for name in "qkv")
    scores = scale * (q @ k.swapaxes(-1, -2))
    if hidden is not None:
        scores = scores + np.where(hidden, -np.inf, 0)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({}, {}),
        ({"attributes": "scale = 0.5"}, {}),
        ({"attributes": "is_causal = 1"}, {"Add": 1}),
        ({"mask": "float[4, 5]"}, {"Add": 1, **ZEROS}),
        ({"mask": "bool[1, 1, 4, 5]"}, {"Add": 1}),
        ({"mask": "float[4, 5]", "attributes": "is_causal = 1"}, {"Add": 3, **ZEROS}),
        # only both together hide all keys from the second query; the constant part is folded
        pytest.param(
            {"mask": "bool[1, 1, 4, 5]", "attributes": "is_causal = 1"},
            {"Add": 2, "Where": 1},
            marks=zeros_where_nothing_is_seen,
        ),
        ({"heads": 1}, SHARED),
        (
            {"keys": "n", "attributes": "is_causal = 1"},
            {"Shape": 1, "Concat": 1, "ConstantOfShape": 1, "Trilu": 1, "Add": 1},
        ),
    ],
)
def test_it_is_written_out(given, more):
    result = optimized(attention(**given))  # `optimized` compares both
    assert ops(result) == {**WRITTEN_OUT, **more}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("keys", "queries"), [(5, 4), ("n", "m")])
@pytest.mark.parametrize("shared", [4, 2])
def test_heads_side_by_side_are_taken_apart(shared, keys, queries, causal):
    text = f"""<ir_version: 11, opset_import: ["" : 23]>
        net (float[b, {queries}, 64] q, float[b, {keys}, {16 * shared}] k, float[b, {keys}, {8 * shared}] v)
            => (float[b, {queries}, 32] y) {{
            y = Attention <q_num_heads = 4, kv_num_heads = {shared}, is_causal = {causal}> (q, k, v) }}"""
    result = optimized(ir.from_proto(onnx.parser.parse_model(text)))
    rng = np.random.default_rng(0)
    sizes = {"q": (3, 4, 64), "k": (3, 5, 16 * shared), "v": (3, 5, 8 * shared)}
    feeds = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    apart = {
        name: one.reshape(*one.shape[:2], 4 if name == "q" else shared, -1).swapaxes(1, 2)
        for name, one in feeds.items()
    }
    apart.update({name: np.repeat(apart[name], 4 // shared, axis=1) for name in "kv"})
    hidden = ~np.tri(4, 5, dtype=bool) if causal else None
    wanted = reference(apart, hidden=hidden).swapaxes(1, 2).reshape(3, 4, 32)
    assert ops(result)["MatMul"] == 2
    found = open_session(result.model).run(feeds)["y"]
    # sums of 16 and 5 products of about 1, each rounded to 2**-24 of it
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_it_answers_as_the_standard_says():
    rng = np.random.default_rng(0)
    sizes = {"q": (3, 2, 4, 16), "k": (3, 2, 5, 16), "v": (3, 2, 5, 16)}
    feeds = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    hidden = ~np.tri(4, 5, dtype=bool)
    result = optimized(attention("is_causal = 1, scale = 0.5")).model
    found = open_session(result).run(feeds)["y"]
    # sums of 16 and 5 products of about 1, each rounded to 2**-24 of it
    np.testing.assert_allclose(found, reference(feeds, scale=0.5, hidden=hidden), atol=2e-5)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("bool", marks=zeros_where_nothing_is_seen),
        "float",
        pytest.param("constant", marks=zeros_where_nothing_is_seen),
    ],
)
def test_a_query_that_sees_no_key_gets_zeros(kind, causal):
    """As the standard says; the first query sees no key, and with `causal` the second neither."""
    sees = np.array([[0] * 5, [0, 0, 1, 1, 1], [1, 0, 1, 0, 0], [1] * 5], bool)
    declared = {"bool": ", bool[4, 5] m", "float": ", float[4, 5] m", "constant": ""}[kind]
    constant = f"<bool[4, 5] m = {{{', '.join(str(int(one)) for one in sees.flat)}}}>"
    text = f"""<ir_version: 11, opset_import: ["" : 23]>
        net (float[b, 2, 4, 16] q, float[b, 2, 5, 16] k, float[b, 2, 5, 16] v{declared})
            => (float[b, 2, 4, 16] y) {constant if kind == "constant" else ""} {{
            y = Attention <is_causal = {causal}> (q, k, v, m) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.node[0].name = "attention"  # the name that options use
    result = optimize(ir.from_proto(proto))
    products = [node.name for node in result.model.graph if node.op_type == "MatMul"]
    assert len(products) == 2
    assert products[1] == "attention"
    rng = np.random.default_rng(0)
    sizes = {"q": (3, 2, 4, 16), "k": (3, 2, 5, 16), "v": (3, 2, 5, 16)}
    feeds = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    if kind != "constant":
        feeds["m"] = sees if kind == "bool" else np.where(sees, 0, -np.inf).astype(np.float32)
    content = ir.to_proto(result.model).SerializeToString()
    (found,) = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)
    seen = sees & np.tri(4, 5, dtype=bool) if causal else sees
    blind = ~seen.any(1)
    assert blind.sum() == 1 + causal
    assert not found[:, :, blind].any()
    # sums of 16 and 5 products of about 1, each rounded to 2**-24 of it
    wanted = reference(feeds, hidden=~seen & ~blind[:, None])
    np.testing.assert_allclose(found[:, :, ~blind], wanted[:, :, ~blind], atol=2e-5)


def test_scores_in_fp16_stay_in_its_range():
    """Before scaling by 1/4 they are 16 * 64 * 64, and FP16 ends at 65504; all steps are exact."""
    text = """<ir_version: 11, opset_import: ["" : 23]>
        net (float16[1, 2, 4, 16] q, float16[1, 2, 4, 16] k, float16[1, 2, 4, 16] v)
            => (float16[1, 2, 4, 16] y) { y = Attention (q, k, v) }"""
    result = optimize(ir.from_proto(onnx.parser.parse_model(text)))
    assert ops(result) == WRITTEN_OUT
    full = np.full((1, 2, 4, 16), 64, np.float16)
    feeds = {"q": full, "k": full, "v": np.ones_like(full)}
    (found,) = ReferenceEvaluator(ir.to_proto(result.model)).run(None, feeds)
    np.testing.assert_array_equal(found, feeds["v"])


@pytest.mark.parametrize(
    "given",
    [
        {"attributes": "softcap = 2.0"},
        {"attributes": "softmax_precision = 1"},
        {"attributes": "is_causal = 1, left_window_size = 1", "opset": 25},
        {"mask": "float[4, n]"},
        {"mask": "int64[4, 5]"},
    ],
)
def test_other_forms_stay(given):
    result = optimize(attention(**given), OptimizeOptions(check=False))
    assert ops(result) == {"Attention": 1}
    assert not result.log.rolled_back


def test_its_products_are_then_one_int8_kernel():
    text = """net (float[1, 2, 8, 16] x) => (float[1, 2, 8, 16] y) {
        q = MatMul(x, w)
        a = Attention(q, x, x)
        y = MatMul(a, w)
    }"""
    model = network(text, {"w": (16, 16)}, opset=23)
    name_nodes(model)
    artifact = Artifact(
        "net", model, optimized(model).model, request=PlacementRequest(target=FOR_RTX)
    )
    ranges = {
        name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 1000, 0)
        for name in watched_tensors(artifact.model, artifact.request)
    }
    groups = insert_qdq(artifact.with_calibration(Calibration("minmax", ranges))).groups
    assert [group.int8 for group in groups if group.kind == "attention"] == [True, True]
