"""The whole job on a network with more weights than one protobuf can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from tests.command import trtbuild

if TYPE_CHECKING:
    from pathlib import Path

WORDS, WIDTH = 4_300_000, 128  # a table of 2.2 GB
CLASSES = 10


def save_recommender(folder: Path) -> Path:
    """A lookup in a large table and two layers behind it; the table's file is empty but for some rows."""
    rng = np.random.default_rng(0)
    table = np.memmap(folder / "table", np.float32, "w+", shape=(WORDS, WIDTH))
    table[::100_000] = rng.standard_normal((len(table[::100_000]), WIDTH))
    table.flush()
    weights = {
        "table": ir.ExternalTensor(
            "table", 0, table.nbytes, ir.DataType.FLOAT, name="table", shape=ir.Shape(table.shape),
            base_dir=folder,
        ),
        "w1": ir.tensor(rng.standard_normal((WIDTH, WIDTH), np.float32) / 8, name="w1"),
        "w2": ir.tensor(rng.standard_normal((WIDTH, CLASSES), np.float32) / 8, name="w2"),
    }  # fmt: skip
    held = {name: ir.Value(name=name, const_value=tensor) for name, tensor in weights.items()}
    words = ir.val("words", ir.DataType.INT64, ["N"])
    found = ir.node("Gather", [held["table"], words])
    first = ir.node("MatMul", [found.outputs[0], held["w1"]])
    relu = ir.node("Relu", first.outputs)
    second = ir.node("MatMul", [relu.outputs[0], held["w2"]])
    scores = second.outputs[0]
    scores.name, scores.type = "scores", ir.TensorType(ir.DataType.FLOAT)
    scores.shape = ir.Shape(["N", CLASSES])
    graph = ir.Graph(
        [words], [scores], nodes=[found, first, relu, second], initializers=held.values(),
        opset_imports={"": 17}, name="recommender",
    )  # fmt: skip
    ir.save(ir.Model(graph, ir_version=8), folder / "recommender.onnx")
    return folder / "recommender.onnx"


@pytest.mark.nightly
def test_the_whole_job_beyond_two_gibibytes(tmp_path, capsys) -> None:
    model, data, out = save_recommender(tmp_path), tmp_path / "words.npy", tmp_path / "out"
    np.save(data, np.arange(0, WORDS, 100_000)[:, None])
    assert model.with_name("table").stat().st_size > 2**31
    done = trtbuild(
        capsys, "engine", model, "--int8", "--data", data, "-o", out, "--min-sqnr", 20, "--json"
    )
    assert done.code == 0, done.err
    built = out / "recommender.int8.onnx"
    done = trtbuild(capsys, "verify", model, built, "--data", data, "--min-sqnr", 20, "--json")
    assert done.code == 0, done.err
    calibration = (tmp_path / "one", tmp_path / "two")
    for path, workers in zip(calibration, (1, 2)):
        done = trtbuild(
            capsys, "calibrate", model, "--data", data, "-o", path, "--workers", workers
        )
        assert done.code == 0, done.err
    assert calibration[0].read_bytes() == calibration[1].read_bytes()
