"""The changes to a network by reading it, and what digests distinguish."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.models import NETWORKS
from tests.networks.network import from_text
from trtbuild import write_model
from trtbuild.errors import ModelError, OutputError
from trtbuild.model import (
    graph_digest,
    input_specs,
    output_specs,
    read_model,
    read_unchanged,
    static_batch,
    weight_files,
    weights_digest,
    writing,
)
from trtbuild.runtime.onnxruntime import open_session


def saved(tmp_path, proto, name="net.onnx"):
    path = tmp_path / name
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_are_no_inputs_and_the_opset_is_raised(tmp_path):
    path = saved(tmp_path, NETWORKS["weights_are_inputs"].proto)
    model = read_model(path)
    assert [spec.name for spec in input_specs(model)] == ["x"]
    assert model.graph.opset_imports[""] == 13
    unchanged = read_unchanged(path)
    assert len(unchanged.graph.inputs) > 1
    assert unchanged.graph.opset_imports[""] == 8


@pytest.mark.parametrize(("name", "opset"), [("opset_18", 18), ("opset_22", 22), ("float16", 19)])
def test_newer_opsets_stay(tmp_path, name, opset):
    assert read_model(saved(tmp_path, NETWORKS[name].proto)).graph.opset_imports[""] == opset


@pytest.mark.parametrize(
    ("name", "dims", "batch"),
    [
        ("dims_static", (1, 3, 8, 8), 1),
        ("dims_static_batch_4", (4, 3, 8, 8), 4),
        ("dims_named", ("batch", 3, "height", "width"), None),
        ("dims_all_dynamic", (None, 3, None, None), None),
        ("dims_minus_one", (None, 3, None, None), None),
    ],
)
def test_fixed_and_dynamic_dims_are_read(tmp_path, name, dims, batch):
    model = read_model(saved(tmp_path, NETWORKS[name].proto))
    (spec,) = input_specs(model)
    assert spec.dims == dims
    assert spec.dtype == np.float32
    assert static_batch(model) == batch
    assert output_specs(model)[0].dims == (dims[0], 5)


def test_every_node_has_a_name_of_its_own_and_unique_names_stay(tmp_path):
    for name in ("names_empty", "names_equal", "names_odd"):
        model = read_model(saved(tmp_path, NETWORKS[name].proto))
        names = [node.name for node in model.graph]
        assert all(names)
        assert len(set(names)) == len(names)
        if name == "names_odd":
            assert names[:2] == ["a b", "[0]"]


def test_external_data_small_and_large_through_a_raised_opset(tmp_path):
    proto = NETWORKS["opset_9"].proto
    path = tmp_path / "net.onnx"
    moved = onnx.ModelProto.FromString(proto.SerializeToString())  # saving removes its weights
    onnx.save(moved, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    inside, outside = (read_model(p) for p in (saved(tmp_path, proto, "inside.onnx"), path))
    assert weights_digest(inside) == weights_digest(outside)
    assert graph_digest(inside) == graph_digest(outside)


def test_the_graph_digest_ignores_weights_and_theirs_the_graph(tmp_path):
    text = "g (float[N, 4] x) => (float[N, 5] y) {{ y = Gemm <alpha = {alpha}> (x, w) }}"
    first = from_text(text.format(alpha=1.0), {"w": (4, 5)})
    again = from_text(text.format(alpha=1.0), {"w": (4, 5)})
    attribute = from_text(text.format(alpha=2.0), {"w": (4, 5)})
    weights = from_text(text.format(alpha=1.0), {"w": (4, 5)}, seed=2)
    models = [read_model(saved(tmp_path, proto)) for proto in (first, again, attribute, weights)]
    graphs = [graph_digest(model) for model in models]
    assert graphs[0] == graphs[1] == graphs[3] != graphs[2]
    values = [weights_digest(model) for model in models]
    assert values[0] == values[1] == values[2] != values[3]


def test_digest_sees_into_bodies(tmp_path):
    text = """g (bool c, float[N] x) => (float[N] y) {{ y = If (c) <
      then_branch = t () => (float[N] a) {{ a = {op} (x) }},
      else_branch = e () => (float[N] b) {{ b = Neg (x) }}> }}"""
    digests = {
        graph_digest(read_model(saved(tmp_path, from_text(text.format(op=op)))))
        for op in ("Relu", "Abs")
    }
    assert len(digests) == 2


def test_digest_sees_weights_in_bodies(tmp_path):
    text = """g (bool c, float[2] x) => (float[2] y) {{ y = If (c) <
      then_branch = t () => (float[2] a) <float[2] w = {{1.0, {value}}}> {{ a = Mul (x, w) }},
      else_branch = e () => (float[2] b) {{ b = Neg (x) }}> }}"""
    digests = {
        weights_digest(read_model(saved(tmp_path, from_text(text.format(value=value)))))
        for value in ("2.0", "3.0")
    }
    assert len(digests) == 2


def test_digest_sees_shapes_and_dtypes_of_constants(tmp_path):
    text = """g (float[2, 2] x) => (float[2, 2] y) {{
      c = Constant <value = {value}> () k = Cast <to = 1> (c) y = Mul (x, k) }}"""
    values = ("float[1, 2] {0.0, 0.0}", "float[2, 1] {0.0, 0.0}", "int32[1, 2] {0, 0}")
    digests = {
        graph_digest(read_model(saved(tmp_path, from_text(text.format(value=value)))))
        for value in values
    }
    assert len(digests) == 3


def test_digests_see_texts(tmp_path):
    def digests(text):
        made = from_text("""g (float[2] x) => (float[2] y) {
          e = Equal(s, t) k = Cast <to = 1> (e) y = Mul (x, k) }""", opset=19)  # fmt: skip
        made.graph.initializer.extend(
            onnx.helper.make_tensor(name, onnx.TensorProto.STRING, [1], [value])
            for name, value in (("s", text), ("t", "b"))
        )
        model = read_model(saved(tmp_path, made))
        return graph_digest(model), weights_digest(model)

    first, second = digests("a"), digests("b")
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_large_weights_go_beside_the_file(tmp_path, monkeypatch):
    model = read_model(saved(tmp_path, NETWORKS["opset_13"].proto))
    monkeypatch.setattr(writing, "EXTERNAL_DATA_LIMIT", 100)
    out = tmp_path / "out"
    out.mkdir()
    files = write_model(model, out / "big.onnx")
    assert [file.name for file in files] == ["big.onnx", "big.onnx.data"]
    assert {file.name for file in out.iterdir()} == {file.name for file in files}
    onnx.checker.check_model(str(out / "big.onnx"))
    assert weights_digest(ir.load(out / "big.onnx")) == weights_digest(model)
    with pytest.raises(OutputError, match=r"cannot write '.*missing/big.onnx'"):
        write_model(model, tmp_path / "missing" / "big.onnx")


def with_weights_apart(folder):
    folder.mkdir(parents=True)
    proto = onnx.load(NETWORKS["opset_13"].save(folder)[0])
    path = folder / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


def test_weights_behind_links_as_in_the_cache_of_a_hub(tmp_path):
    plain, blobs = with_weights_apart(tmp_path / "plain"), tmp_path / "hub" / "blobs"
    shown = tmp_path / "hub" / "snapshots" / "1"
    for folder in (blobs, shown):
        folder.mkdir(parents=True)
    for name in ("net.onnx", "net.bin"):
        shutil.copy(plain.with_name(name), blobs / f"digest of {name}")
        (shown / name).symlink_to(f"../../blobs/digest of {name}")
    for read in (read_model, read_unchanged):
        wanted, found = read(plain), read(shown / "net.onnx")
        assert weights_digest(found) == weights_digest(wanted)
    assert set(weight_files(shown / "net.onnx")) == {shown / "net.bin"}


@pytest.mark.parametrize("how", ["link", "path", "unsorted"])
def test_weights_outside_the_folder_are_refused(tmp_path, how):
    path = with_weights_apart(tmp_path / "net")
    path.with_name("net.bin").rename(tmp_path / "net.bin")
    if how == "link":
        path.with_name("net.bin").symlink_to("../net.bin")
    else:
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            tensor.external_data[0].value = "../net.bin"
        if how == "unsorted":  # a network that reading repairs
            nodes = list(proto.graph.node)
            del proto.graph.node[:]
            proto.graph.node.extend(reversed(nodes))
        path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder"):
        read_model(path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
@pytest.mark.parametrize("large", [False, True])
def test_a_network_whose_name_is_no_text_is_read_and_run(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr("trtbuild.model.reading._WORTH_APART", 0)
    file = saved(tmp_path, NETWORKS["opset_13"].proto)
    wanted = weights_digest(read_model(file))
    renamed = file.rename(tmp_path / os.fsdecode(b"n\xff.onnx"))
    assert weights_digest(read_model(renamed)) == wanted
    open_session(renamed).close()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_files_of_weights_are_known_of_a_network_whose_name_is_no_text(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "n (float[N, 256] x) => (float[N, 256] y) {a = MatMul (x, inside) y = Add (a, outside)}"
    )
    inside, outside = np.ones((256, 256), np.float32), np.ones(256, np.float32)
    for name, array in (("inside", inside), ("outside", outside)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.external_data_helper.set_external_data(proto.graph.initializer[1], "w.bin")
    (tmp_path / "w.bin").write_bytes(proto.graph.initializer[1].raw_data)
    proto.graph.initializer[1].ClearField("raw_data")
    file = tmp_path / os.fsdecode(b"n\xff.onnx")
    file.write_bytes(proto.SerializeToString())
    assert weight_files(file) == (tmp_path / "w.bin",)
