"""Outputs kept in ONNX Runtime's blocked layout: the same values in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtbuild.calibration.network import float_tensors, observed_network
from trtbuild.runtime.blocked_layout import open_blocked
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS = st.sampled_from([3, 4, 8, 15, 16, 17, 32, 48])


def network(channels: tuple[int, int, int], *, pool: str, shortcut: bool, seed: int) -> ir.Model:
    """Two convolutions, perhaps a residual addition, a pooling, and readers outside the blocked layout."""
    first, second, rows = channels
    back = (
        "d = Conv <pads = [1, 1, 1, 1]> (c, w2) e = Add (d, b)" if shortcut else "e = Identity (c)"
    )
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, {rows}, 10, 9] x, float[{first}, {rows}, 3, 3] w0, float[{second}, {first}, 1, 1] w1,
       float[{first}, {second}, 3, 3] w2) => (float[N, M] y) {{
      a = Conv <pads = [1, 1, 1, 1]> (x, w0)
      b = Relu (a)
      c = Conv (b, w1)
      {back}
      f = Relu (e)
      p = {pool} (f)
      s = Sigmoid (f)
      t = GlobalAveragePool (s)
      u = Flatten (p)
      v = Flatten (t)
      y = Concat <axis = 1> (u, v)
    }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    random = np.random.default_rng(seed)
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        content = random.standard_normal(value.shape.numpy()).astype(np.float32)
        value.const_value = ir.Tensor(content, name=value.name)
        model.graph.register_initializer(value)
    return model


@settings(max_examples=60)
@given(
    channels=st.tuples(CHANNELS, CHANNELS, CHANNELS),
    pool=st.sampled_from(["MaxPool <kernel_shape = [2, 2]>", "GlobalAveragePool", "Identity"]),
    shortcut=st.booleans(),
    data=st.data(),
)
def test_values_are_those_of_an_ordinary_run(channels, pool, shortcut, data) -> None:
    model = network(channels, pool=pool, shortcut=shortcut, seed=sum(channels))
    inner = [name for name in float_tensors(model) if name not in ("x", "w0", "w1", "w2")]
    watched = observed_network(model, data.draw(st.sets(st.sampled_from(inner), min_size=1)))
    shape = (data.draw(st.integers(1, 3)), channels[2], 10, 9)
    feeds = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
    wanted = open_session(watched.model, Execution.FLOAT, threads=1).run(feeds)
    found = open_blocked(watched.model, threads=1).run(feeds)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert np.array_equal(np.sort(found[name], axis=None), np.sort(values, axis=None)), name


def test_whole_blocks_are_left_as_they_are(tmp_path: Path) -> None:
    model = observed_network(
        network((16, 32, 16), pool="Identity", shortcut=True, seed=0), ["b", "c"]
    ).model
    open_session(model, Execution.FLOAT, threads=1, optimized=tmp_path / "as_it_runs.onnx")
    if not any(
        node.op_type == "ReorderOutput" for node in ir.load(tmp_path / "as_it_runs.onnx").graph
    ):
        pytest.skip("ONNX Runtime does not compute convolutions in blocks on this processor")
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 16, 10, 9), np.float32)}
    ordered = open_session(model, Execution.FLOAT, threads=1).run(feeds)
    found = open_blocked(model, threads=1).run(feeds)
    # values of this many channels are adjacent
    together = {
        block: ordered["b"].reshape(16 // block, block, 90).transpose(0, 2, 1).ravel()
        for block in (4, 8, 16)
    }
    assert any(np.array_equal(found["b"].ravel(), wanted) for wanted in together.values())


def test_without_room_for_files_order_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = observed_network(
        network((16, 16, 16), pool="Identity", shortcut=False, seed=0), ["b"]
    ).model
    feeds = {"x": np.ones((1, 16, 10, 9), np.float32)}
    wanted = open_session(model, Execution.FLOAT, threads=1).run(feeds)["b"]
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    assert np.array_equal(open_blocked(model, threads=1).run(feeds)["b"], wanted)
