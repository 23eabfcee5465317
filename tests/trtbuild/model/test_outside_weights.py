"""Weights in a file beside the network: a file that is cut short, a file with several names."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from trtbuild.errors import ModelError
from trtbuild.model import model_bytes, outside_weights, read_model, write_model
from trtbuild.model.digests import weights_digest
from trtbuild.model.mapped_pages import mapped_copy
from trtbuild.model.stored_weights import beside_weights
from trtbuild.model.writing import temporary_file

if TYPE_CHECKING:
    from pathlib import Path

WEIGHT = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def network(folder: Path, opset: int = 17) -> Path:
    graph = "g (float[n,64] x) => (float[n,64] y) {y = MatMul(x, w)}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {graph}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    path = folder / "n.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def test_small_weights_do_not_need_their_file_once_read(tmp_path: Path) -> None:
    model = read_model(network(tmp_path))
    os.truncate(tmp_path / "w.bin", 0)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value, WEIGHT)  # type: ignore[arg-type]


def test_a_large_file_that_is_cut_short_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_weights, "MAPPED_LIMIT", 1)
    path = network(tmp_path)
    mapped, other = read_model(path), read_model(path)
    weight = mapped.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), WEIGHT)
    os.truncate(tmp_path / "w.bin", 100)
    for use in (weight.numpy, weight.tobytes, lambda: model_bytes(other)):
        with pytest.raises(ModelError, match=r"w\.bin' was truncated while it was read.*'w'"):
            use()


def test_weights_are_opened_where_they_lie_while_their_file_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_weights, "MAPPED_LIMIT", 1)
    model, unused = read_model(network(tmp_path)), read_model(tmp_path / "n.onnx")
    proto = onnx.load_from_string(beside_weights(model).content)
    (weight,) = proto.graph.initializer
    place = {entry.key: entry.value for entry in weight.external_data}["location"]
    assert (tmp_path / "w.bin").samefile(f"/{place}")
    weights_digest(model)  # maps the weights
    (tmp_path / "new").write_bytes(bytes(WEIGHT.nbytes))
    (tmp_path / "new").replace(tmp_path / "w.bin")
    for use in (
        lambda: beside_weights(model),
        lambda: temporary_file(model).__enter__(),
        lambda: weights_digest(unused),
    ):
        with pytest.raises(ModelError, match=r"w\.bin' was written after it was read.*'w'"):
            use()


def test_weights_that_git_did_not_fetch_are_named_so(tmp_path: Path) -> None:
    path = network(tmp_path)
    (tmp_path / "w.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    with pytest.raises(ModelError, match=r"w\.bin' is not the weight file of .*Git LFS pointer"):
        read_model(path)


@pytest.mark.parametrize(("limit", "opset"), [(1, 17), (10**9, 17), (10**9, 11)])
def test_a_file_of_weights_may_have_two_names(
    limit: int, opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_weights, "MAPPED_LIMIT", limit)
    monkeypatch.setattr(
        "trtbuild.model.opset._LARGEST_OPERAND", 10**9
    )  # the converter reads all weights
    path = network(tmp_path, opset)
    (tmp_path / "second name").hardlink_to(tmp_path / "w.bin")
    (written,) = write_model(read_model(path), tmp_path / "out.onnx")
    found = onnx.load(written).graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(found), WEIGHT)


@pytest.mark.parametrize("limit", [1, 10**9])
def test_so_may_one_of_weights_in_a_body(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_weights, "MAPPED_LIMIT", limit)
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n,64] x, bool c) => (float[n,64] y) {
            y = If(c) <then_branch = t () => (float[n,64] a) {a = MatMul(x, w)},
                else_branch = e () => (float[n,64] b) {b = Neg(x)}>
        }""")
    body = proto.graph.node[0].attribute[0].g
    body.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    path = tmp_path / "n.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "second name").hardlink_to(tmp_path / "w.bin")
    (written,) = write_model(read_model(path), tmp_path / "out.onnx")
    found = onnx.load(written).graph.node[0].attribute[0].g.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(found), WEIGHT)


def test_a_copy_that_finds_no_room_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    np.testing.assert_array_equal(mapped_copy(WEIGHT), WEIGHT)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        mapped_copy(WEIGHT)
