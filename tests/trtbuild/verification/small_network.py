"""A network with every shape of Q/DQ sharing: a residual, a branch, a Concat, pooling, a classifier."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from calibrators import Calibration
from tests.fakes import FakeBatch
from trtbuild.artifact import Artifact
from trtbuild.model import write_model
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import Execution, open_session

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[N, 3, 12, 12] image) => (float[N, 6] logits) {
  s0 = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
  r0 = Relu (s0)
  a0 = Conv <pads = [1, 1, 1, 1]> (r0, w1, b1)
  a1 = Relu (a0)
  a2 = Conv <pads = [1, 1, 1, 1]> (a1, w2, b2)
  sum = Add (a2, r0)
  r1 = Relu (sum)
  left = Conv (r1, w3, b3)
  right = Conv <pads = [1, 1, 1, 1]> (r1, w4, b4)
  lr = Relu (left)
  rr = Relu (right)
  both = Concat <axis = 1> (lr, rr)
  small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (both)
  last = Conv (small, w5, b5)
  lastr = Relu (last)
  mean = GlobalAveragePool (lastr)
  flat = Flatten (mean)
  logits = Gemm <transB = 1> (flat, w6, b6)
}
"""
SHAPES = [
    (8, 3, 3, 3),
    (8, 8, 3, 3),
    (8, 8, 3, 3),
    (6, 8, 1, 1),
    (6, 8, 3, 3),
    (12, 12, 1, 1),
    (6, 12),
]


def float_network() -> ir.Model:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(11)
    for number, shape in enumerate(SHAPES):
        fan_in = int(np.prod(shape[1:]))
        weight = rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        bias = rng.normal(0, 0.1, shape[0]).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{number}"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, f"b{number}"))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in model.graph:
        node.name = f"{node.op_type}_{node.outputs[0].name}"
    return model


@functools.cache
def images(seed: int = 0, count: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)


def batches(seed: int = 0, count: int = 24, size: int = 8) -> list[FakeBatch]:
    """Images whose label is the float network's own answer."""
    data = images(seed, count)
    session = open_session(float_network(), Execution.REFERENCE)
    labels = session.run({"image": data})["logits"].argmax(1)
    return [
        FakeBatch(
            {"image": data[i : i + size]},
            labels[i : i + size],
            [f"image {k}" for k in range(i, min(i + size, count))],
        )
        for i in range(0, count, size)
    ]


def calibrated(method: str = "minmax") -> Artifact:
    """The network with ranges of the images of seed 1."""
    from calibrators import Collector
    from trtbuild.model.edits import tapped

    model = float_network()
    tensors = watched_tensors(model)
    collector = Collector(sorted(tensors))
    feeds = {"image": images(1)}
    found = open_session(tapped(model, tensors), Execution.REFERENCE).run(feeds)
    collector.observe({**{k: v for k, v in {**feeds, **found}.items() if k in tensors}}, batch=0)
    calibration = Calibration.from_histograms(collector.histograms, method)
    return Artifact("small", model, model, calibration=calibration)


def quantized() -> Artifact:
    return insert_qdq(calibrated())


def run(model: ir.Model, data: np.ndarray) -> dict[str, np.ndarray]:
    return open_session(model, Execution.REFERENCE).run({"image": data})


def spoil_weight_scale(model: ir.Model, node_name: str, factor: float) -> None:
    """Multiply the weight's scale of a layer, in place."""
    node = next(node for node in model.graph if node.name == node_name)
    scale = node.inputs[1].producer().inputs[1]
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32(factor), name=scale.name)


def written(folder: Path, num_images: int) -> Path:
    """Write the float and the quantized network and so many images into `folder`, and return it."""
    artifact = quantized()
    write_model(artifact.source, folder / "float.onnx")
    write_model(artifact.quantized, folder / "int8.onnx")
    np.savez(folder / "images.npz", image=images(3, num_images))
    return folder
