"""The operators that each target runs in INT8, and that both forms compute accordingly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from calibrators import Calibration, TensorRange
from trtbuild.artifact import Artifact
from trtbuild.model import name_nodes
from trtbuild.model.inference import infer_model
from trtbuild.plan import Consumer, GroupKind, PlacementRequest
from trtbuild.quantization import insert_qdq, place, portable_form, watched_tensors
from trtbuild.quantization.isolated_layers import layers_alone
from trtbuild.target import COMMON, TARGETS, installed_target

if TYPE_CHECKING:
    from trtbuild.plan import Group, Placement
    from trtbuild.target import Target


def network(text: str, **weights: tuple[int, ...]) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        array = rng.normal(size=shape).astype(np.float32) / 4
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    infer_model(model)
    return model


def group(placement: Placement, op_type: str) -> Group:
    (found,) = (one for one in placement.groups if one.op_type == op_type)
    return found


def quantized(model: ir.Model, target: Target, *patterns: str) -> Artifact:
    request = PlacementRequest(tuple(patterns), target=target)
    names = watched_tensors(model, request)
    ranges = {name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 9, 0) for name in names}
    artifact = Artifact(
        "m", model, model, calibration=Calibration("minmax", ranges), request=request
    )
    return insert_qdq(artifact)


def run(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


GROUPED = """g (float[1, 12, 8, 8] x) => (float[1, M, H, W] y) {
    a = Conv <kernel_shape = [1, 1]> (x, first)
    y = Conv <group = GROUPS> (a, w) }"""


@pytest.mark.parametrize(
    ("given", "made", "where"),
    [
        (1, 1, {"common", "tensorrt-10", "tensorrt-11", "dla"}),  # depthwise
        (1, 2, {"common", "dla"}),
        (3, 3, {"common", "dla"}),
        (6, 6, {"common", "dla"}),
        (4, 4, set(TARGETS) - {"rtx-turing"}),
        (6, 8, {"common", "dla"}),
        (4, 1, {"common", "dla", "rtx"}),  # RTX takes groups of four, with any outputs
        (4, 2, {"common", "dla", "rtx"}),
        (12, 12, set(TARGETS) - {"rtx-turing"}),  # one group is an ordinary convolution
    ],
)
def test_grouped_convolutions_in_int8(given: int, made: int, where: set[str]) -> None:
    groups = 12 // given
    model = network(
        GROUPED.replace("GROUPS", str(groups)),
        first=(12, 12, 1, 1),
        w=(groups * made, given, 3, 3),
    )
    layer = model.graph[1].name
    found = {
        name: place(model, PlacementRequest(target=target)) for name, target in TARGETS.items()
    }
    groups_of = {n: next(g for g in p.groups if g.name == layer) for n, p in found.items()}
    assert {name for name, one in groups_of.items() if one.int8} == where
    for name in TARGETS.keys() - where:
        assert groups_of[name].reason.startswith(f"target {name}: ")
        assert layer not in {point.node for point in found[name].weights}


@pytest.mark.parametrize(
    ("pads", "where"),
    [
        ("0, 0, 0, 0", {"tensorrt-10", "tensorrt-11", "dla"}),
        ("1, 1, 1, 1", {"tensorrt-10", "tensorrt-11"}),
    ],
)
def test_transposed_convolutions_in_int8(pads: str, where: set[str]) -> None:
    model = network(
        f"g (float[1, 4, 8, 8] x) => (float[1, 4, H, W] y) {{ y = ConvTranspose <pads = [{pads}]> (x, w) }}",
        w=(4, 4, 3, 3),
    )
    int8 = {
        n
        for n, t in TARGETS.items()
        if group(place(model, PlacementRequest(target=t)), "ConvTranspose").int8
    }
    assert int8 == where


@pytest.mark.parametrize(
    ("window", "on_rtx"),
    [
        ("[3, 3], strides = [1, 1]", True),
        ("[3, 3], strides = [2, 2]", False),
        ("[2, 2]", False),
        ("[3], strides = [1]", False),
        ("[3, 3, 3], strides = [1, 1, 1]", False),
    ],
)
def test_averages_in_int8(window: str, on_rtx: bool) -> None:
    axes = window.partition("]")[0].count(",") + 1
    into, out = ", 8" * axes, "".join(f", S{axis}" for axis in range(axes))
    model = network(
        f"""g (float[1, 4{into}] x) => (float[1, 4{out}] y) {{
            a = Conv (x, v) p = AveragePool <kernel_shape = {window}> (a) y = Conv (p, w) }}""",
        v=(4, 4, *[1] * axes),
        w=(4, 4, *[1] * axes),
    )
    convolving = {name: target for name, target in TARGETS.items() if target.convolution}
    int8 = {
        n
        for n, t in convolving.items()
        if group(place(model, PlacementRequest(target=t)), "AveragePool").int8
    }
    assert int8 == set(convolving) - (set() if on_rtx else {"rtx"})


@pytest.mark.parametrize(
    ("outputs", "in_float"),
    [
        (1, {"rtx", "rtx-turing", "tensorrt-10", "tensorrt-11"}),
        (2, {"rtx", "rtx-turing"}),
        (3, set()),
    ],
)
def test_products_with_few_outputs(outputs: int, in_float: set[str]) -> None:
    model = network("g (float[2, 8] x) => (float[2, M] y) { y = MatMul(x, w) }", w=(8, outputs))
    found = {
        n
        for n, t in TARGETS.items()
        if not group(place(model, PlacementRequest(target=t)), "MatMul").int8
    }
    assert found == in_float


POOLED = """g (float[1, 4, 8, 8] x) => (float[1, 4, 4, 4] y OUTPUT) {
    a = Conv (x, v) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
    c = Conv (p, w) s = Sigmoid(p) y = Mul(c, s) }"""


def test_a_pool_that_would_run_twice_is_read_through_one_pair() -> None:
    weights = {"v": (4, 4, 1, 1), "w": (4, 4, 1, 1)}
    model = network(POOLED.replace("OUTPUT", ""), **weights)
    placement = place(model, PlacementRequest(target=TARGETS["rtx"]))
    pool = group(placement, "MaxPool")
    sigmoid = group_name(model, "Sigmoid")
    assert pool.kind is GroupKind.POOL
    assert Consumer(sigmoid, 0) in pool.consumers & placement.consumers["p"]
    assert "a" in placement.consumers
    # on other targets, or if the other reader must stay in float, only the layer after it reads INT8
    spared = (
        place(model, PlacementRequest(target=COMMON)),
        place(model, PlacementRequest(("MaxPool",), target=TARGETS["rtx"])),
        place(
            network(POOLED.replace("OUTPUT", ", float[1, 4, 4, 4] p"), **weights),
            PlacementRequest(target=TARGETS["rtx"]),
        ),
    )
    for other in spared:
        assert {reader.node for reader in other.consumers["p"]} == {group_name(model, "Conv", 1)}


def group_name(model: ir.Model, op_type: str, place: int = 0) -> str:
    return [node.name or "" for node in model.graph if node.op_type == op_type][place]


ATTENTION = """g (float[1, LENGTH, HEAD] x, float[1, 1, LENGTH] mask) => (float[1, LENGTH, HEAD] y) {
    q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
    kt = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul(q, kt) t = Mul(s, half) m = Add(t, mask) p = Softmax(m) y = MatMul(p, v) }"""


CHOOSES = "hidden = Less(mask, half) m = Where(hidden, half, t)"
OF_ITS_SHAPE = "z = Shape(t) zero = ConstantOfShape(z) m = Add(t, zero)"


def attention(
    length: int | str = 6,
    head: int = 16,
    masked: str = "m = Add(t, mask)",
    keys: int | str | None = None,
) -> ir.Model:
    text = ATTENTION.replace("m = Add(t, mask)", masked)
    if keys is not None:
        text = text.replace("x, float[1, 1, LENGTH] mask", f"x, float[1, {keys}, HEAD] z")
        text = text.replace(masked, "m = Mul(t, half)").replace("MatMul(x, wk)", "MatMul(z, wk)")
        text = text.replace("MatMul(x, wv)", "MatMul(z, wv)")
    text = text.replace("LENGTH", str(length)).replace("HEAD", str(head))
    square = (head, head)
    return network(text, wq=square, wk=square, wv=square, half=())


@pytest.mark.parametrize("masked", ["m = Add(t, mask)", CHOOSES, OF_ITS_SHAPE])
@pytest.mark.parametrize("name", TARGETS)
def test_attention_reads_all_four_through_pairs_where_it_is_one_kernel(
    name: str, masked: str
) -> None:
    placement = place(attention(masked=masked), PlacementRequest(target=TARGETS[name]))
    found = [one for one in placement.groups if one.kind is GroupKind.ATTENTION]
    if TARGETS[name].attention is None:
        assert not found
        return
    assert all(one.int8 and one.rounds and one.reason.startswith(f"target {name}") for one in found)
    assert placement.consumers.keys() >= {"q", "kt", "p", "v"}
    assert (
        "k" not in placement.consumers
    )  # each pair is in front of its product, with its own scale
    assert placement.unclipped == {"p"}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (attention(length=513), "513 positions"),
        (attention(length=513, keys=6), "513 positions"),
        (attention(length=6, keys=513), "513 positions"),
        (attention(head=24), "heads of 24"),
        (attention(length=1), "one query"),
    ],
)
def test_attention_without_the_kernel_stays_float(model: ir.Model, why: str) -> None:
    placement = place(model, PlacementRequest(target=TARGETS["rtx"]))
    found = [one for one in placement.groups if one.kind is GroupKind.ATTENTION]
    assert len(found) == 2
    assert all(not one.int8 and why in one.reason for one in found)


@pytest.mark.parametrize(("length", "keys"), [(512, None), ("n", None), (6, 1), ("n", "m")])
def test_attention_of_up_to_512_or_of_unknown_positions_is_int8(length, keys) -> None:
    model = attention(length=length, keys=keys)
    placement = place(model, PlacementRequest(target=TARGETS["rtx"]))
    found = [one for one in placement.groups if one.kind is GroupKind.ATTENTION]
    assert [one.int8 for one in found] == [True, True]


def test_attention_whose_scores_have_another_reader_is_no_attention() -> None:
    model = attention(masked="m = Add(t, mask) other = Relu(t)")
    placement = place(model, PlacementRequest(target=TARGETS["rtx"]))
    assert GroupKind.ATTENTION not in {one.kind for one in placement.groups}


@pytest.mark.parametrize("which", [0, 1])
def test_either_product_takes_the_attention_to_float(which: int) -> None:
    model = attention()
    name = [
        n.name for n in model.graph if n.op_type == "MatMul" and n.inputs[1].name in ("kt", "v")
    ][which]
    placement = place(model, PlacementRequest((), frozenset([name or ""]), TARGETS["rtx"]))
    found = [one for one in placement.groups if one.kind is GroupKind.ATTENTION]
    assert len(found) == 2
    assert not any(one.int8 for one in found)


@pytest.mark.parametrize(
    ("samples", "kernels"), [("1", "two INT8 products"), ("2", "one INT8 kernel")]
)
def test_one_head_of_one_sample_is_said_to_be_no_single_kernel(samples: str, kernels: str) -> None:
    text = ATTENTION.replace("[1, ", f"[{samples}, ").replace("LENGTH", "6").replace("HEAD", "16")
    model = network(text, **dict.fromkeys(("wq", "wk", "wv"), (16, 16)), half=())
    placement = place(model, PlacementRequest(target=TARGETS["rtx"]))
    found = [one for one in placement.groups if one.kind is GroupKind.ATTENTION]
    assert len(found) == 2
    assert all(one.int8 and kernels in one.reason for one in found)


def rounded(x: np.ndarray, amax: float) -> np.ndarray:
    scale = np.float64(np.float32(amax) / np.float32(127))
    return np.clip(np.rint(x / scale), -128, 127) * scale


def test_attention_in_int8_computes_what_its_scales_say() -> None:
    model = attention()
    artifact = quantized(model, TARGETS["rtx"])
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 6, 16)).astype(np.float32)
    mask = np.where(rng.random((1, 1, 6)) < 0.3, -1e4, 0).astype(np.float32)
    mask[..., 0] = 0
    weights = {
        n: v.const_value.numpy().astype(np.float64) for n, v in model.graph.initializers.items()
    }

    def layer(name: str) -> np.ndarray:
        scales = np.abs(weights[name]).max(axis=0) / 127
        return rounded(x.astype(np.float64), 3) @ (np.rint(weights[name] / scales) * scales)

    q, k, v = (rounded(layer(name), 3) for name in ("wq", "wk", "wv"))
    scores = q @ k.transpose(0, 2, 1) * weights["half"] + mask
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    # Softmax is not clipped: its scale spans the largest value seen, 4, whatever the rule chose
    wanted = rounded(share, 4) @ v
    assert artifact.quantized is not None
    (got,) = run(artifact.quantized, x=x, mask=mask)
    # float32 sums may move a value over a rounding boundary, which is one step of 3 / 127
    assert np.abs(got - wanted).max() < 2 * 3 / 127
    assert np.mean(np.abs(got - wanted) > 1e-4) < 0.2
    assert run(portable_form(artifact), x=x, mask=mask)[0].shape == wanted.shape


def test_the_record_names_the_target() -> None:
    artifact = quantized(attention(), TARGETS["tensorrt-11"])
    assert artifact.history[-1].details["target"] == "tensorrt-11"


def test_what_is_installed_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_target() is COMMON
    monkeypatch.setattr("trtbuild.target.is_importable", lambda module: module == "tensorrt_rtx")
    assert installed_target().name == "rtx"
    model = network(GROUPED.replace("GROUPS", "12"), first=(12, 12, 1, 1), w=(12, 1, 3, 3))
    assert len(place(model).weights) == 1
    assert len(place(model, PlacementRequest(target=COMMON)).weights) == 2


def test_layers_alone_between_layers_in_float() -> None:
    text = """g (float[1, 8, 8, 8] x) => (float[1, 8, 8, 8] y) {
        a = Conv <kernel_shape = [1, 1]> (x, w)
        b = Conv <group = 8, pads = [1, 1, 1, 1]> (a, d) c = Relu(b)
        e = Conv <kernel_shape = [1, 1]> (c, w) f = Relu(e)
        g = Conv <group = 8, pads = [1, 1, 1, 1]> (f, d)
        h = Conv <kernel_shape = [1, 1]> (g, w) i = Sigmoid(h)
        j = Conv <kernel_shape = [1, 1]> (i, w) k = Add(j, f)
        l = Conv <group = 8, pads = [1, 1, 1, 1]> (k, d)
        y = Conv <kernel_shape = [1, 1]> (l, w) }"""
    model = network(text, w=(8, 8, 1, 1), d=(8, 1, 3, 3))
    name = {node.outputs[0].name: node.name for node in model.graph}
    alone = {
        target: layers_alone(
            model, place(model, PlacementRequest(target=TARGETS[target])).decisions
        )
        for target in ("rtx", "tensorrt-10")
    }
    # 'a' reads the input, 'h' and 'j' are neighbours; with depthwise ones in INT8, no layer is alone
    assert alone == {"rtx": (name["e"], name["y"]), "tensorrt-10": ()}


@pytest.mark.parametrize("target", [name for name, one in TARGETS.items() if one.convolution])
def test_what_averages_in_float_says_so(target: str) -> None:
    model = network(
        """g (float[1, 4, 8, 8] x) => (float[1, 4, 1, 1] y) {
            a = Conv(x, w) b = GlobalAveragePool(a) y = Conv(b, w) }""",
        w=(4, 4, 1, 1),
    )
    pool = group(place(model, PlacementRequest(target=TARGETS[target])), "GlobalAveragePool")
    assert pool.int8
    assert ("averages in float" in pool.reason) == (target == "rtx")
