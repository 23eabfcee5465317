"""A tiny network with seeded weights, and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["IMAGE", "Network", "from_text"]

IMAGE = {"x": (3, 8, 8)}


@dataclass(frozen=True)
class Network:
    """A network and the shapes of its data.

    Attributes:
        proto: the ONNX model.
        rows: input name -> shape of one sample, without the batch axis.
        int8: how many layers with weights must become INT8.
        integers: input name -> exclusive upper end of an integer input's values, which start at 0.
        always: input name -> the value of every element of every sample.
    """

    proto: onnx.ModelProto
    rows: Mapping[str, tuple[int, ...]]
    int8: int
    integers: Mapping[str, int] = field(default_factory=dict)

    def arrays(self, count: int = 64, seed: int = 5) -> dict[str, np.ndarray]:
        """`count` samples for every input, as in an ``.npz`` file."""
        random = np.random.default_rng(seed)
        types = {value.name: value.type.tensor_type.elem_type for value in self.proto.graph.input}
        arrays = {}
        for name, row in self.rows.items():
            dtype = onnx.helper.tensor_dtype_to_np_dtype(types[name])
            if dtype.kind in "biu":
                drawn = random.integers(0, self.integers.get(name, 2), (count, *row))
            else:
                drawn = random.standard_normal((count, *row))
            arrays[name] = drawn.astype(dtype)
        return arrays

    def feeds(self, seed: int = 17) -> dict[str, np.ndarray]:
        """One run's worth of data: two samples, or as many as the network fixes."""
        dims = {v.name: v.type.tensor_type.shape.dim for v in self.proto.graph.input}
        feeds = {}
        for name, row in self.rows.items():
            has_batch_axis = len(dims[name]) == len(row) + 1
            count = max(dims[name][0].dim_value, 0) or 2
            drawn = self.arrays(count, seed)[name]
            feeds[name] = drawn if has_batch_axis else drawn[0]
        return feeds

    def save(self, folder: Path, stem: str = "net", count: int = 64) -> tuple[Path, Path]:
        """Write the model and its data into `folder`; return both paths."""
        model, data = folder / f"{stem}.onnx", folder / f"{stem}.npz"
        model.write_bytes(self.proto.SerializeToString())
        np.savez(data, **self.arrays(count))
        return model, data


def from_text(
    body: str,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    dtype: type = np.float32,
    as_inputs: bool = False,
    seed: int = 1,
) -> onnx.ModelProto:
    """Parse ``name (inputs) => (outputs) { nodes }`` and draw the weights.

    Args:
        body: a graph in ONNX's text form.
        weights: name -> shape of the initializers to draw.
        opset: of the ONNX domain.
        ir_version: of the file.
        dtype: of the weights.
        as_inputs: list the weights among the inputs too, as files before IR version 4 do.
        seed: of the weights.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(f"{header}\n{body}")
    random = np.random.default_rng(seed)
    for name, shape in (weights or {}).items():
        fan_in = int(np.prod(shape[1:])) or 1
        array = (random.standard_normal(shape) / np.sqrt(fan_in)).astype(dtype)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if as_inputs:
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return proto


def sentence_embedding() -> onnx.ModelProto:
    """Return a network that embeds sentences of 64 tokens out of 1,000: int64 ids and mask to 16 floats."""
    body = """e (int64[N, 64] input_ids, int64[N, 64] attention_mask) => (float[N, 16] embedding) {
        m = Cast <to = 1> (attention_mask)
        axis = Constant <value_ints = [2]> ()
        column = Unsqueeze (m, axis)
        words = Gather (table, input_ids)
        kept = Mul (words, column)
        pooled = ReduceMean <axes = [1], keepdims = 0> (kept)
        embedding = MatMul (pooled, w) }"""
    return from_text(body, {"table": (1000, 32), "w": (32, 16)})
