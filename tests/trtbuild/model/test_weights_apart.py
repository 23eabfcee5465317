"""Large networks: weights stay in files, are written once, and are the same to the bit."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from trtbuild.errors import ExecutionError, ModelError
from trtbuild.jobs.loading import load_recorded
from trtbuild.model import model_bytes, read_model, weight_files, write_model
from trtbuild.model.stored_weights import beside_weights, in_file
from trtbuild.runtime.dequantized_weights import with_float_weights
from trtbuild.runtime.onnxruntime import Execution, open_session

WIDTH = 300
LIES_IN = onnx.StringStringEntryProto(key="location", value="two.onnx")


def two_layers(folder: Path) -> Path:
    """A network of two matrices of 360 kB and a bias of 1 kB, weights inside, with fields of all kinds."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((WIDTH, WIDTH), np.float32) / 16 for name in ("w", "v")}
    weights["b"] = rng.standard_normal(WIDTH, np.float32)
    held = [numpy_helper.from_array(content, name) for name, content in weights.items()]
    held[1].doc_string = "the second"
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="second"),
    ]
    shape = ["N", WIDTH]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        held,
    )
    path = folder / "two.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def every_file_is_large(monkeypatch) -> None:
    for name in ("reading._WORTH_APART", "outside_weights.MAPPED_LIMIT"):
        monkeypatch.setattr(f"trtbuild.model.{name}", 0)


def test_weights_stay_in_the_file_that_is_read(tmp_path, every_file_is_large) -> None:
    model = read_model(two_layers(tmp_path))
    found = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert [name for name, t in found.items() if isinstance(t, ir.ExternalTensor)] == ["w", "v"]
    assert weight_files(tmp_path / "two.onnx") == ()


def test_a_file_is_the_same_to_the_byte_as_from_memory(tmp_path, every_file_is_large) -> None:
    path, copy = two_layers(tmp_path), tmp_path / "copy.onnx"
    whole = model_bytes(ir.from_proto(onnx.load(path)))
    assert write_model(read_model(path), copy) == [copy]
    assert copy.read_bytes() == whole


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"float_data": [1.0]}, "one and only one value field"),
        ({"data_location": 1}, "keeps the weight 'w' in"),
        ({"data_location": 1, "external_data": [LIES_IN]}, "stored externally"),
        ({"name": "v"}, "v initializer name is not unique"),
        ({"name": ""}, "must have a non-empty name"),
        ({"data_type": 0}, "the weight 'w' of .* is damaged"),
        ({"data_type": onnx.TensorProto.DOUBLE}, "it has 360000 bytes instead of 720000"),
        ({"dims": [-WIDTH, WIDTH]}, r"its dims are \[-300, 300\]"),
        ({"raw_data": bytes(4 * WIDTH * WIDTH + 4)}, "it has 360004 bytes instead of 360000"),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_a_fault_of_a_weight_is_found_in_a_file_of_any_size(
    what, sentence, large, tmp_path, monkeypatch
) -> None:
    if large:
        monkeypatch.setattr("trtbuild.model.reading._WORTH_APART", 0)
    path = two_layers(tmp_path)
    proto = onnx.load(path)
    weight = proto.graph.initializer[0]
    for field in what:
        weight.ClearField(field)
    weight.MergeFrom(onnx.TensorProto(**what))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=sentence):
        read_model(path)


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT4", "BOOL"])
def test_weights_of_every_width_are_read_apart_as_they_were(
    kind, is_mapped, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("trtbuild.model.reading._WORTH_APART", 0)
    if is_mapped:
        monkeypatch.setattr("trtbuild.model.outside_weights.MAPPED_LIMIT", 0)
    values = np.random.default_rng(0).integers(0, 2, (701, 301)).astype(np.float32)
    weight = helper.make_tensor("w", getattr(onnx.TensorProto, kind), values.shape, values.ravel())
    weight = ir.to_proto(ir.Tensor(ir.from_proto(weight).numpy(), ir.DataType[kind], name="w"))
    entry = weight.metadata_props.add(key="made", value="here")
    cast = helper.make_node("Cast", ["w"], ["y"], to=onnx.TensorProto.FLOAT)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, values.shape)
    graph = helper.make_graph([cast], "g", [], [output], [weight])
    imports = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "n.onnx")
    found = read_model(tmp_path / "n.onnx").graph.initializers["w"].const_value
    assert (found.name, found.dtype, found.shape.numpy()) == ("w", ir.DataType[kind], values.shape)
    assert np.array_equal(found.numpy().astype(np.float32), values)
    assert found.metadata_props[entry.key] == entry.value


def test_weights_are_those_of_the_network_that_was_parsed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("trtbuild.model.reading._WORTH_APART", 0)
    path = two_layers(tmp_path)
    wanted, check = onnx.load(path), onnx.checker.check_model
    found = read_model(path).graph.initializers
    for weight in wanted.graph.initializer:
        np.testing.assert_array_equal(
            found[weight.name].const_value.numpy(), numpy_helper.to_array(weight)
        )

    def written_meanwhile(proto: onnx.ModelProto) -> None:
        check(proto)
        path.write_bytes(path.read_bytes()[::-1])

    monkeypatch.setattr(onnx.checker, "check_model", written_meanwhile)
    with pytest.raises(ModelError, match=r"two\.onnx' was written while it was read"):
        read_model(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, every_file_is_large, share) -> None:
    path = two_layers(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match="cut off or damaged"):
        read_model(path)


def test_a_wrong_file_is_refused_at_once_however_large(tmp_path) -> None:
    path = tmp_path / "net.onnx"
    path.touch()
    os.truncate(path, 2**40)  # reading it would take minutes
    with pytest.raises(ModelError, match="cut off or damaged"):
        load_recorded(path)


def test_two_networks_of_one_weight_share_it_in_memory(tmp_path) -> None:
    model = read_model(two_layers(tmp_path))
    one, other = beside_weights(model), beside_weights(model.clone())
    assert one.folder is None  # nothing is written
    assert len(one.in_memory) == 2
    for name, values in one.in_memory.items():
        assert np.shares_memory(values, other.in_memory[name])
        np.testing.assert_array_equal(values, model.graph.initializers[name].const_value.numpy())


@pytest.mark.parametrize("execution", list(Execution))
def test_a_weight_that_nothing_reads_does_no_harm(tmp_path, execution) -> None:
    model = read_model(two_layers(tmp_path))
    model.graph.outputs[0] = model.graph.node("first").outputs[0]
    model.graph.remove(model.graph.node("second"), safe=True)
    feeds = {"x": np.ones((3, WIDTH), np.float32)}
    assert open_session(model, execution).run(feeds)["h"].shape == (3, WIDTH)
    assert list(beside_weights(model).in_memory) == ["w"]


def test_two_networks_of_one_weight_name_one_file(tmp_path, every_file_is_large) -> None:
    model = read_model(two_layers(tmp_path))
    named = [onnx.load_from_string(beside_weights(m).content) for m in (model, model.clone())]
    places = [
        [entry.value for tensor in proto.graph.initializer for entry in tensor.external_data]
        for proto in named
    ]
    assert places[0] == places[1]
    assert [len(t.external_data) > 0 for t in named[0].graph.initializer] == [True, True, False]


@pytest.mark.parametrize("execution", list(Execution))
def test_weights_beside_give_what_those_inside_give(tmp_path, execution) -> None:
    model = read_model(two_layers(tmp_path))
    feeds = {"x": np.random.default_rng(1).standard_normal((3, WIDTH), np.float32)}
    session, inside = open_session(model, execution), open_session(model_bytes(model), execution)
    expected = inside.run(feeds)["y"]
    del model  # a session must not depend on the network object
    gc.collect()
    np.testing.assert_array_equal(session.run(feeds)["y"], expected)


@pytest.mark.parametrize("shift", range(4))
def test_a_large_file_runs_as_its_network_wherever_its_weights_lie(
    shift, tmp_path, monkeypatch
) -> None:
    """Floats in a file may start at any offset; floats in memory are aligned to four bytes."""
    path = two_layers(tmp_path)
    proto = onnx.load(path)
    proto.graph.name += "o" * shift
    onnx.save(proto, path)
    feeds = {"x": np.random.default_rng(1).standard_normal((3, WIDTH), np.float32)}
    expected = open_session(path).run(feeds)["y"]
    for name in ("reading._WORTH_APART", "outside_weights.MAPPED_LIMIT"):
        monkeypatch.setattr(f"trtbuild.model.{name}", 0)
    for opened in (open_session(path), open_session(read_model(path))):
        np.testing.assert_array_equal(opened.run(feeds)["y"], expected)


def test_a_large_file_with_a_type_that_is_not_known_is_a_sentence(
    tmp_path, every_file_is_large
) -> None:
    path = two_layers(tmp_path)
    proto = onnx.load(path)
    proto.graph.initializer[0].data_type = 99
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ExecutionError, match="ONNX Runtime cannot load the network"):
        open_session(path)


def test_the_file_of_a_weight_goes_with_it() -> None:
    tensor = in_file(np.arange(8, dtype=np.float32))
    path = Path(tensor.path)
    np.testing.assert_array_equal(tensor.numpy(), np.arange(8))
    del tensor
    gc.collect()
    assert not path.exists()


def test_a_weight_of_several_megabytes_comes_back_whole() -> None:
    content = np.arange(700_001, dtype=np.int32)
    np.testing.assert_array_equal(in_file(content).numpy(), content)


@pytest.mark.parametrize(("dtype", "axis"), [(np.int8, 0), (np.int8, 1), (np.uint8, None)])
def test_weights_are_dequantized_as_the_operator_does(dtype, axis, monkeypatch) -> None:
    monkeypatch.setattr("trtbuild.runtime.dequantized_weights.LARGE", 0)
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 127, (WIDTH, 4)).astype(dtype)
    count = 1 if axis is None else steps.shape[axis]
    scale = (
        np.abs(rng.standard_normal(count)).astype(np.float32).reshape(() if axis is None else -1)
    )
    zero = rng.integers(0, 127, scale.shape).astype(dtype)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "dq",
        [info("x", onnx.TensorProto.FLOAT, steps.shape)],
        [info("y", onnx.TensorProto.FLOAT, steps.shape)],
        [numpy_helper.from_array(a, n) for n, a in (("q", steps), ("s", scale), ("z", zero))],
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    feeds = {"x": np.zeros(steps.shape, np.float32)}
    as_written = open_session(model, Execution.REFERENCE).run(feeds)["y"]
    changed = with_float_weights(model)
    assert [node.op_type for node in changed.graph] == ["Add"]
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Add"]
    np.testing.assert_array_equal(open_session(changed).run(feeds)["y"], as_written)


def test_weights_that_become_halves_are_left_to_the_operator(monkeypatch) -> None:
    monkeypatch.setattr("trtbuild.runtime.dequantized_weights.LARGE", 0)
    model = ir.from_onnx_text("""<ir_version: 11, opset_import: ["": 23]>
        dq (float16[4] x) => (float16[4] y) <int8[4] q = {1, 2, 3, 4}, float s = {0.5}> {
            w = DequantizeLinear <output_dtype = 10> (q, s)
            y = Add(x, w)
        }""")
    assert with_float_weights(model) is model


def test_a_fork_writes_into_a_folder_of_its_own(monkeypatch) -> None:
    ours = in_file(np.zeros(8))
    forked = os.getpid() + 1
    monkeypatch.setattr("os.getpid", lambda: forked)
    theirs = in_file(np.zeros(8))
    assert Path(ours.path).parent != Path(theirs.path).parent


def test_two_threads_map_a_weight_of_this_process_at_once(monkeypatch) -> None:
    """Both forms of a network share their INT8 weights and are written at the same time."""
    tensor = in_file(np.arange(8, dtype=np.int8))
    second_begun, first_done = threading.Event(), threading.Event()
    check = ir.ExternalTensor._check_path_containment  # called before onnx_ir maps a file

    def slow(self):
        check(self)
        if threading.current_thread() is first:
            second_begun.wait(0.5)  # times out if the second thread is kept waiting
        else:
            second_begun.set()
            first_done.wait(0.5)

    monkeypatch.setattr(ir.ExternalTensor, "_check_path_containment", slow)
    found: list[bytes] = []

    def ask() -> None:
        found.append(tensor.tobytes())
        first_done.set()

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    second.start()
    first.join()
    second.join()
    assert found == [bytes(range(8))] * 2
