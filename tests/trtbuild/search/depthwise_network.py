"""A network of depthwise and pointwise convolutions whose channels differ by orders of magnitude."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir

from trtbuild.artifact import Artifact
from trtbuild.data import Sample, Source
from trtbuild.data.samples import array_key

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
depthwise (float[N, 3, 10, 10] image) => (float[N, 6] logits) {
  s0 = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
  r0 = ACTIVATION0
  d1 = Conv <pads = [1, 1, 1, 1], group = 8> (r0, w1, b1)
  r1 = Relu (d1)
  p2 = Conv (r1, w2)
  r2 = Relu (p2)
  pool = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2)
  d3 = Conv <pads = [1, 1, 1, 1], group = 12> (pool, w3, b3)
  r3 = Relu (d3)
  p4 = Conv <group = 2> (r3, w4, b4)
  r4 = Relu (p4)
  mean = GlobalAveragePool (r4)
  flat = Flatten (mean)
  logits = Gemm <transB = 1> (flat, w5, b5)
}
"""
SHAPES = [(8, 3, 3, 3), (8, 1, 3, 3), (12, 8, 1, 1), (12, 1, 3, 3), (10, 6, 1, 1), (6, 10)]


def network(imbalance: float = 0.0, clipped: bool = False) -> ir.Model:
    """`imbalance`: standard deviation of the logarithm of a factor per channel that one layer applies and
    the next undoes; the computed function does not depend on it (with ReLU)."""
    activation = "Clip (s0, zero, six)" if clipped else "Relu (s0)"
    proto = onnx.parser.parse_model(TEXT.replace("ACTIVATION0", activation))
    rng, factors = np.random.default_rng(3), np.random.default_rng(4)
    before = np.ones(3)
    constants = {"zero": np.float32(0), "six": np.float32(6)} if clipped else {}
    for number, shape in enumerate(SHAPES):
        after = np.exp(factors.normal(0, imbalance, shape[0])) if number < 5 else np.ones(shape[0])
        weight = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        trailing = (1,) * (len(shape) - 2)
        groups = len(before) // shape[1]
        taken = np.repeat(before.reshape(groups, shape[1]), shape[0] // groups, axis=0)
        weight = weight / taken.reshape(shape[:2] + trailing) * after.reshape(-1, 1, *trailing)
        constants[f"w{number}"] = weight.astype(np.float32)
        constants[f"b{number}"] = (rng.normal(0, 0.2, shape[0]) * after).astype(np.float32)
        before = after
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name)
        for name, array in constants.items()
        if name in read
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def artifact(imbalance: float = 0.0, clipped: bool = False) -> Artifact:
    model = network(imbalance, clipped)
    return Artifact("depthwise", model, model)


@functools.cache
def images(seed: int, count: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 10, 10)).astype(np.float32)


class Images(Source):
    """Images as a source."""

    def __init__(self, seed: int, count: int = 48) -> None:
        self._seed = seed
        self._images = images(seed, count)

    @property
    def description(self):
        return f"images of seed {self._seed}"

    def __iter__(self):
        for number, image in enumerate(self._images):
            feeds = {"image": image[None]}
            yield Sample(f"image {number}", array_key([image]), lambda feeds=feeds: dict(feeds))
