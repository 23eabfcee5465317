"""Small networks with data and ranges, made in the process of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from calibrators import Calibration, TensorRange
from trtbuild.artifact import Artifact
from trtbuild.backends.base import BuildRequest
from trtbuild.model import name_nodes
from trtbuild.options.tables import make, read_table
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import OnnxRuntimeSession, open_session

CHANNELS = 16


def network(batch: str | int = 1) -> ir.Model:
    """Conv, Relu, Conv, Add of a skip, Relu, pool, Gemm; input ``images`` [batch, 3, 8, 8]."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(size=(CHANNELS, 3, 3, 3)) / 4,
        "b1": rng.normal(size=CHANNELS) / 4,
        "w2": rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 12,
        "b2": rng.normal(size=CHANNELS) / 4,
        "w3": rng.normal(size=(CHANNELS, CHANNELS)) / 4,
    }
    text = f"""
        <ir_version: 10, opset_import: ["" : 21]>
        net (float[{batch}, 3, 8, 8] images) => (float[{batch}, {CHANNELS}] scores) {{
            c1 = Conv <pads = [1, 1, 1, 1]> (images, w1, b1)
            r1 = Relu(c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
            sum = Add(c2, r1)
            r2 = Relu(sum)
            pooled = GlobalAveragePool(r2)
            flat = Flatten(pooled)
            scores = Gemm(flat, w3)
        }}
    """
    proto = onnx.parser.parse_model(text)
    for name, value in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    model: ir.Model = ir.from_proto(proto)
    name_nodes(model)
    return model


def batches(count: int, size: int = 1, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Batches for `network`."""
    rng = np.random.default_rng(seed)
    return [{"images": rng.normal(size=(size, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def float_artifact(batch: str | int = 1) -> Artifact:
    model = network(batch)
    return Artifact("net", model, model)


def calibrated(batch: str | int = 1, method: str = "entropy") -> Artifact:
    """The network with a range for every tensor that needs one, and its Q/DQ form."""
    return with_ranges(float_artifact(batch), batch, method)


def with_ranges(artifact: Artifact, batch: str | int = 1, method: str = "entropy") -> Artifact:
    """An artifact of a network with the inputs of `network`, calibrated and quantized."""
    wanted = sorted(watched_tensors(artifact.model))
    watching = artifact.model.clone()
    outputs = [value for node in watching.graph for value in node.outputs if value.name in wanted]
    watching.graph.outputs.extend(value for value in outputs if not value.is_graph_output())
    feeds = batches(1, batch if isinstance(batch, int) else 8)[0]
    arrays = {**open_session(watching).run(feeds), **feeds}
    ranges = {name: _range(arrays[name], method) for name in wanted}
    return insert_qdq(artifact.with_calibration(Calibration(method, ranges)))


def _range(array: np.ndarray, method: str) -> TensorRange:
    amax = float(np.abs(array).max())
    bounds = float(array.min()), float(array.max())
    return TensorRange(amax, amax, *bounds, method, "", array.size, int((array == 0).sum()))


def request(
    artifact: Artifact,
    data: list[dict[str, np.ndarray]] | None = None,
    *,
    fp16: bool = False,
    **options: Any,
) -> BuildRequest:
    """A request that writes into the working directory."""
    given = (lambda: iter(data)) if data is not None else None
    settings = tensorrt_options(options)
    return BuildRequest(artifact, Path(), given, fp16, settings, sample_batches=given)


def tensorrt_options(table: dict[str, Any]) -> TensorRTOptions:
    """The options that a recipe file with these values has."""
    return make(TensorRTOptions, read_table(TensorRTOptions, table, "test.toml"))


def reference(artifact: Artifact) -> OnnxRuntimeSession:
    return open_session(artifact.source)
