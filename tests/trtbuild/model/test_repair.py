"""Networks that ONNX Runtime runs can be read: they are repaired with a note, and compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trtbuild.errors import ModelError
from trtbuild.model import graph_digest, read_model, read_unchanged, repairs_of
from trtbuild.model.repair import repair
from trtbuild.model.writing import model_bytes

RNG = np.random.default_rng(0)
W1 = numpy_helper.from_array(RNG.standard_normal((8, 3, 3, 3)).astype(np.float32), "w1")
W2 = numpy_helper.from_array(RNG.standard_normal((4, 8, 3, 3)).astype(np.float32), "w2")
GAIN = numpy_helper.from_array(np.full(10, 2, np.float32), "gain")
CONV1 = helper.make_node("Conv", ["x", "w1"], ["c"], name="conv1")
RELU = helper.make_node("Relu", ["c"], ["r"], name="relu")
CONV2 = helper.make_node("Conv", ["r", "w2"], ["y"], name="conv2")
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 8, 8])
OPEN = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
CHAIN = [CONV1, RELU, CONV2]


def model(nodes, weights=(W1, W2), *, opset=17, ir=8, inputs=(X,), outputs=(Y,), **more):
    graph = helper.make_graph(nodes, "g", list(inputs), list(outputs), list(weights), **more)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def run(content, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options).run(None, feeds)


def layer_norm():
    node = helper.make_node("LayerNormalization", ["r", "gain"], ["l"], name="norm")
    last = helper.make_node("Conv", ["l", "w2"], ["y"], name="conv2")
    return model([CONV1, RELU, node, last], [W1, W2, GAIN], opset=12)


def without_shape():
    return model(CHAIN, outputs=[OPEN])


def without_type():
    return model(CHAIN, value_info=[onnx.ValueInfoProto(name="c")])


def with_type_alone():
    return model(CHAIN, value_info=[helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])


def unnamed():
    made = model(CHAIN)
    made.graph.name = ""
    return made


def sparse():
    values = np.array([1.5, -2.0, 0.25], np.float32)
    made = [
        helper.make_sparse_tensor(
            numpy_helper.from_array(values, name), numpy_helper.from_array(indices, "at"), [4, 4]
        )
        for name, indices in (
            ("linear", np.array([0, 5, 14])),
            ("coordinates", np.array([[0, 0], [1, 1], [3, 2]])),
        )
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "linear"], ["m"], name="first"),
        helper.make_node("MatMul", ["m", "coordinates"], ["y"], name="second"),
    ]
    flat = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    return model(nodes, (), inputs=flat[:1], outputs=flat[1:], sparse_initializer=made)


def overridable():
    open_dims = helper.make_tensor_value_info("w1", TensorProto.FLOAT, ["a", None, 3, 3])
    return model(CHAIN, inputs=[X, open_dims])


FOUND = {
    "unsorted": (model([CONV2, RELU, CONV1]), "sorted"),
    "ir3": (model(CHAIN, ir=3, opset=8), "IR version 3"),
    "no shape": (without_shape(), "'y'"),
    "no type": (without_type(), "had no type"),
    "a type without a shape": (with_type_alone(), None),
    "unnamed": (unnamed(), "no name"),
    "layer norm of opset 12": (layer_norm(), "'LayerNormalization'"),
    "sparse": (sparse(), "'linear', 'coordinates'"),
    "overridable": (overridable(), None),
    "nothing": (model(CHAIN), None),
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("read", [read_model, read_unchanged])
def test_what_onnxruntime_runs_is_read_and_computes_the_same(tmp_path, name, read, caplog):
    made, sentence = FOUND[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(made.SerializeToString())
    dims = [
        2 if dim.dim_param else dim.dim_value
        for dim in made.graph.input[0].type.tensor_type.shape.dim
    ]
    feeds = {"x": RNG.standard_normal(dims).astype(np.float32)}
    wanted = run(made.SerializeToString(), feeds)
    found = read(path)
    assert len(repairs_of(found)) == (sentence is not None)
    assert all(sentence in repair for repair in repairs_of(found))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (sentence is not None)
    written = model_bytes(found)
    onnx.checker.check_model(written)
    for one, other in zip(run(written, feeds), wanted):
        # the same operators on the same numbers; another opset may pick another kernel
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@settings(max_examples=50)
@given(order=st.permutations(range(12)), seed=st.integers(0, 2**16))
def test_any_order_of_nodes_is_sorted(order, seed):
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node(
            "Add",
            [f"t{rng.integers(number + 1)}", f"t{rng.integers(number + 1)}"],
            [f"t{number + 1}"],
        )
        for number in range(12)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("t0", "t12")]
    made = model([nodes[i] for i in order], (), inputs=ends[:1], outputs=ends[1:])
    repair(made, "net.onnx")
    onnx.checker.check_model(made)
    assert sorted(n.output[0] for n in made.graph.node) == sorted(n.output[0] for n in nodes)


def test_what_is_sorted_stays_as_it_is():
    made = model(CHAIN)
    before = made.SerializeToString()
    assert repair(made, "net.onnx") == []
    assert made.SerializeToString() == before


def test_a_body_that_reads_from_around_it_comes_after_what_it_reads(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Neg", ["c"], ["b"])],
        "body",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    choose = helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    made = model(
        [choose, CONV1],
        [W1],
        inputs=[X, flag],
        outputs=[OPEN],
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(made.SerializeToString())
    assert [node.op_type for node in read_model(path).graph] == ["Conv", "If"]


def training(node, opset, *more):
    outputs = [OPEN]
    names = [name for name in node.input[1:] if name]
    weights = [numpy_helper.from_array(np.ones(8, np.float32), name) for name in names]
    if node.op_type == "Dropout":
        weights = [
            numpy_helper.from_array(np.float32(0.5), "ratio"),
            numpy_helper.from_array(np.array(True), "on"),
        ]
    last = helper.make_node("Relu", ["n"], ["y"])
    return model([CONV1, node, last, *more], [W1, *weights], opset=opset, outputs=outputs)


DROPOUT = helper.make_node("Dropout", ["c", "ratio", "on"], ["n"], name="drop")
NORM = helper.make_node(
    "BatchNormalization", ["c", "s", "b", "m", "v"], ["n", "m2", "v2"], training_mode=1, name="norm"
)
OLD_NORM = helper.make_node(
    "BatchNormalization", ["c", "s", "b", "m", "v"], ["n", "m2", "v2", "sm", "sv"], name="norm"
)


@pytest.mark.parametrize(("node", "opset"), [(DROPOUT, 15), (NORM, 15), (OLD_NORM, 9)])
def test_training_mode_is_switched_off_and_said(tmp_path, node, opset):
    path = tmp_path / "net.onnx"
    path.write_bytes(training(node, opset).SerializeToString())
    found = read_model(path)
    sentence = repairs_of(found)[-1]
    assert f"{node.op_type} '{node.name}'" in sentence
    feeds = {"x": RNG.standard_normal((2, 3, 12, 12)).astype(np.float32)}
    twice = [run(model_bytes(found), feeds)[0] for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    plain = run(
        model(
            [CONV1], [W1], outputs=[helper.make_tensor_value_info("c", 1, None)]
        ).SerializeToString(),
        feeds,
    )[0]
    if node.op_type == "Dropout":
        wanted = np.maximum(plain, 0)
    else:  # scale, bias, mean and variance are 1
        wanted = np.maximum((plain - 1) / np.sqrt(np.float32(1 + 1e-5)) + 1, 0)
    np.testing.assert_allclose(twice[0], wanted, rtol=1e-5, atol=1e-5)


def test_statistics_of_training_that_somebody_reads_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    made = training(NORM, 15, helper.make_node("Neg", ["m2"], ["z"]))
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=r"'norm'.*'m2'.*eval"):
        read_model(path)


def test_bfloat16_becomes_float32(tmp_path):
    import ml_dtypes

    values = RNG.standard_normal((8, 10)).astype(ml_dtypes.bfloat16)
    ends = [
        helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["n", 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10]),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["b"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [8, 10], values.tobytes(), raw=True)
    path = tmp_path / "net.onnx"
    path.write_bytes(
        model(
            nodes, [weight], opset=22, ir=10, inputs=ends[:1], outputs=ends[1:]
        ).SerializeToString()
    )
    found = read_model(path)
    assert "bfloat16" in repairs_of(found)[0]
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    wanted = x.astype(np.float64) @ values.astype(np.float64)
    # a sum of 8 products in float32
    np.testing.assert_allclose(run(model_bytes(found), {"x": x})[0], wanted, rtol=1e-5, atol=1e-5)


def in_float64(inputs=TensorProto.DOUBLE):
    """A product and a mask in float64, behind a Cast where the input is not."""
    ends = [
        helper.make_tensor_value_info("x", inputs, ["n", 8]),
        helper.make_tensor_value_info("y", inputs, ["n", 4]),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["d", "w"], ["m"]),
        helper.make_node("Max", ["m", "least"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=inputs),
    ]
    weight = RNG.standard_normal((8, 4))
    least = numpy_helper.from_array(np.float64(-1e300), "least")
    made = model(
        nodes, [numpy_helper.from_array(weight, "w"), least], inputs=ends[:1], outputs=ends[1:]
    )
    return made, weight


def test_a_network_in_float64_becomes_one_in_float32(tmp_path):
    made, weight = in_float64()
    onnx.save(made, tmp_path / "net.onnx")
    found = read_model(tmp_path / "net.onnx")
    assert "float64" in repairs_of(found)[0]
    assert {tensor.dtype for tensor in found.graph.initializers.values()} == {ir.DataType.FLOAT}
    assert all(
        np.isfinite(tensor.const_value.numpy()).all()
        for tensor in found.graph.initializers.values()
    )
    x = RNG.standard_normal((3, 8))
    (got,) = run(model_bytes(found), {"x": x.astype(np.float32)})
    # a sum of 8 products in float32
    np.testing.assert_allclose(got, x @ weight, rtol=1e-5, atol=1e-5)


def test_what_keeps_a_divisor_of_float64_from_zero_does_so_in_float32(tmp_path):
    ends = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 8]) for name in ("x", "y")
    ]
    nodes = [
        helper.make_node("Sub", ["x", "x"], ["zero"]),
        helper.make_node("Add", ["zero", "least"], ["d"]),
        helper.make_node("Div", ["zero", "d"], ["y"]),
    ]
    least = numpy_helper.from_array(np.float64(1e-300), "least")
    onnx.save(model(nodes, [least], inputs=ends[:1], outputs=ends[1:]), tmp_path / "net.onnx")
    found = read_model(tmp_path / "net.onnx")
    (got,) = run(model_bytes(found), {"x": np.ones((2, 8), np.float32)})
    assert (got == 0).all()  # and not 0 / 0


def test_sequences_of_float64_become_float32_too(tmp_path):
    ends = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 8]) for name in ("x", "y")
    ]
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["both"]),
        helper.make_node("SequenceAt", ["both", "second"], ["y"]),
    ]
    second = numpy_helper.from_array(np.int64(1), "second")
    made = model(nodes, [second], inputs=ends[:1], outputs=ends[1:])
    made.graph.value_info.append(
        helper.make_tensor_sequence_value_info("both", TensorProto.DOUBLE, None)
    )
    onnx.save(made, tmp_path / "net.onnx")
    x = np.ones((2, 8), np.float32)
    assert (run(model_bytes(read_model(tmp_path / "net.onnx")), {"x": x})[0] == x).all()


def test_float64_inside_stays(tmp_path):
    made, _ = in_float64(TensorProto.FLOAT)
    onnx.save(made, tmp_path / "net.onnx")
    found = read_model(tmp_path / "net.onnx")
    assert repairs_of(found) == ()
    assert {tensor.dtype for tensor in found.graph.initializers.values()} == {ir.DataType.DOUBLE}


@pytest.mark.parametrize("read", [read_model, read_unchanged])
def test_absent_inputs_at_the_end_are_dropped(read, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w1", ""], ["c"], name="conv1"),
        helper.make_node("Clip", ["c", "", "most"], ["r"], name="clip"),
        helper.make_node("Conv", ["r", "w2"], ["y"], name="conv2"),
    ]
    most = numpy_helper.from_array(np.float32(6), "most")
    onnx.save(model(nodes, [W1, W2, most]), tmp_path / "net.onnx")
    found = read(tmp_path / "net.onnx")
    names = [[value and value.name for value in node.inputs] for node in found.graph]
    assert names == [["x", "w1"], ["c", None, "most"], ["r", "w2"]]


def test_a_pad_keeps_its_absent_value_and_calibrations_of_its_network_fit(tmp_path):
    nodes = [
        helper.make_node("Pad", ["x", "pads", ""], ["p"], name="pad"),
        helper.make_node("Conv", ["p", "w1"], ["y"], name="conv"),
    ]
    pads = numpy_helper.from_array(np.zeros(8, np.int64), "pads")
    net = model(nodes, [W1, pads])
    onnx.save(net, tmp_path / "net.onnx")
    found = read_model(tmp_path / "net.onnx")
    assert [value and value.name for value in next(iter(found.graph)).inputs] == ["x", "pads", None]
    assert graph_digest(found) == graph_digest(ir.from_proto(net))


def test_a_loop_without_a_condition_lists_it_all_the_same(tmp_path):
    """It has to list its first two inputs, and runs as often as its count says."""
    ends = [
        helper.make_tensor_value_info(name, *kind)
        for name, kind in {
            "i": (TensorProto.INT64, []),
            "before": (TensorProto.BOOL, []),
            "after": (TensorProto.BOOL, []),
            "twice": (TensorProto.INT64, []),
        }.items()
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["before"], ["after"]),
            helper.make_node("Add", ["i", "i"], ["twice"]),
        ],
        "body",
        ends[:2],
        ends[2:],
    )
    made = model(
        [helper.make_node("Loop", ["n", ""], ["y"], body=body)],
        [],
        inputs=[helper.make_tensor_value_info("n", TensorProto.INT64, [])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])],
    )
    onnx.save(made, tmp_path / "net.onnx")
    found = read_model(tmp_path / "net.onnx")
    assert list(run(model_bytes(found), {"n": np.array(3)})[0]) == [0, 2, 4]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "git lfs pull"),
        (b"ftrt" + bytes(40), "TensorRT engine"),
        (b"vtrt" + bytes(40), "TensorRT engine"),
        (b"PK\x03\x04" + bytes(40), "checkpoint"),
        (b"<!DOCTYPE html>", "web server"),
        (bytes(4) + b"ORTM", "ONNX Runtime"),
    ],
)
def test_other_files_are_named(tmp_path, content, word):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=word):
        read_model(path)


@pytest.mark.parametrize("name", [b"relu", b"r", b"maker", b"remark", b"origin", b"count"])
def test_names_and_remarks_that_are_no_text_are_refused(tmp_path, name):
    path = tmp_path / "net.onnx"
    length = bytes([len(name)])
    given = model(CHAIN)
    given.producer_name, given.graph.node[0].doc_string = "maker", "remark"
    given.graph.metadata_props.add(key="origin", value="")
    given.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "count"
    content = given.SerializeToString()
    path.write_bytes(content.replace(length + name, length + b"\x80" + name[1:]))
    with pytest.raises(ModelError, match=r"the text b'.x80.*', which is not UTF-8"):
        read_model(path)


def test_functions_that_multiply_are_refused(tmp_path):
    """Each of 30 functions calls the next twice: a billion nodes when inlined."""
    made = model([CONV1, helper.make_node("F0", ["c"], ["y"], domain="own")], [W1], outputs=[OPEN])
    made.opset_import.append(helper.make_opsetid("own", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for number in range(30):
        last = number == 29
        inner = [
            helper.make_node("Relu" if last else f"F{number + 1}", [source], [target],
                             domain="" if last else "own")
            for source, target in (("a", "b"), ("b", "c"))
        ]  # fmt: skip
        made.functions.append(
            helper.make_function("own", f"F{number}", ["a"], ["c"], inner, imports)
        )
    path = tmp_path / "net.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=f"{2**30 + 1} nodes"):
        read_model(path)


@pytest.mark.parametrize("queries", [5, "queries"])
@pytest.mark.parametrize("mask", ["input", "weight"])
def test_a_mask_with_one_row_for_all_queries_runs(tmp_path, queries, mask) -> None:
    """Softmax(Q K^T / sqrt(4) + mask) V, computed in float64."""
    node = helper.make_node("Attention", ["q", "k", "v", "m"], ["y"], q_num_heads=2, kv_num_heads=2)
    shapes = {"q": [3, queries, 8], "k": [3, 6, 8], "v": [3, 6, 8], "m": [3, 1, 1, 6]}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    made_y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, queries, 8])
    feeds = {n: RNG.standard_normal((3, 5 if n == "q" else 6, 8)).astype(np.float32) for n in "qkv"}
    hidden = np.where(RNG.random((3, 1, 1, 6)) < 0.3, -1e4, 0).astype(np.float32)
    weights = [numpy_helper.from_array(hidden, "m")] if mask == "weight" else []
    given = ends[:3] if weights else ends
    made = model([node], weights, opset=23, ir=11, inputs=given, outputs=[made_y])
    onnx.save(made, tmp_path / "net.onnx")
    found = read_model(tmp_path / "net.onnx")
    assert "1 mask of Attention" in repairs_of(found)[0]
    if not weights:
        feeds["m"] = hidden
    (answer,) = run(model_bytes(found), feeds)
    q, k, v = (feeds[n].astype(np.float64).reshape(3, -1, 2, 4).swapaxes(1, 2) for n in "qkv")
    scores = q @ k.swapaxes(2, 3) / 2 + hidden
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (shares / shares.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(3, 5, 8)
    np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize("op_type", ["If", "Loop"])
def test_a_body_reads_a_mask_with_one_row_of_the_graph_around_it(tmp_path, op_type) -> None:
    """The answer is that of the same Attention outside of a body."""
    dims = {"q": [3, "queries", 8], "m": [3, 1, 1, "queries"]}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in dims.items()]
    made_y, in_body = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, dims["q"]) for n in ("y", "t")
    )
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    attention = helper.make_node("Attention", ["q", "q", "q", "m"], ["t"], **heads)
    if op_type == "If":
        branch = helper.make_graph([attention], "branch", [], [in_body])
        whole = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    else:
        flags = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("go", "on")]
        step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
        again = helper.make_node("Identity", ["go"], ["on"])
        state = helper.make_tensor_value_info("state", TensorProto.FLOAT, dims["q"])
        given, answers = [step, flags[0], state], [flags[1], in_body]
        body = helper.make_graph([again, attention], "body", given, answers)
        whole = helper.make_node("Loop", ["once", "", "q"], ["y"], body=body)
    weights = [
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array(1), "once"),
    ]
    onnx.save(
        model([whole], weights, opset=23, ir=11, inputs=ends, outputs=[made_y]),
        tmp_path / "in.onnx",
    )
    plain = helper.make_node("Attention", ["q", "q", "q", "m"], ["y"], **heads)
    onnx.save(
        model([plain], [], opset=23, ir=11, inputs=ends, outputs=[made_y]), tmp_path / "out.onnx"
    )
    feeds = {"q": RNG.standard_normal((3, 5, 8)), "m": RNG.standard_normal((3, 1, 1, 5))}
    feeds = {name: values.astype(np.float32) for name, values in feeds.items()}
    inside, outside = (
        run(model_bytes(read_model(tmp_path / name)), feeds)[0] for name in ("in.onnx", "out.onnx")
    )
    np.testing.assert_array_equal(inside, outside)


@pytest.mark.parametrize("queries", [1, 5])
def test_a_mask_with_a_row_for_each_query_is_left_as_it_is(tmp_path, queries) -> None:
    node = helper.make_node("Attention", ["q", "k", "k", "m"], ["y"], q_num_heads=2, kv_num_heads=2)
    dims = {"q": [3, queries, 8], "k": [3, 5, 8], "m": [3, 1, queries, 5]}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in dims.items()]
    made_y = helper.make_tensor_value_info("y", TensorProto.FLOAT, dims["q"])
    made = model([node], [], opset=23, ir=11, inputs=ends, outputs=[made_y])
    onnx.save(made, tmp_path / "net.onnx")
    assert repairs_of(read_model(tmp_path / "net.onnx")) == ()
