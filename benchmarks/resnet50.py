"""ResNet-50 as an ONNX model with seeded random weights, for measuring cost only.

He et al., "Deep Residual Learning for Image Recognition", 2015: bottlenecks of 3, 4, 6 and 3 blocks. Batch
norms are folded: every convolution has a bias. Weights are scaled so that activations keep their size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4
OPSET = 17


class _Network:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[ir.Node] = []
        self.weights = ir.tape.Tape()

    def conv(
        self, x: ir.Value, inputs: int, outputs: int, kernel: int, stride: int = 1
    ) -> ir.Value:
        name = f"conv{len(self.nodes)}"
        std = np.sqrt(2 / (inputs * kernel * kernel))
        weight = self._random.normal(0, std, (outputs, inputs, kernel, kernel))
        bias = self._random.normal(0, 0.1, outputs)
        attributes = {
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "kernel_shape": [kernel] * 2,
        }
        read = [x, self._weight(f"{name}.weight", weight), self._weight(f"{name}.bias", bias)]
        return self.node("Conv", read, attributes, name)

    def relu(self, x: ir.Value) -> ir.Value:
        return self.node("Relu", [x])

    def node(
        self,
        op_type: str,
        inputs: list[ir.Value],
        attributes: dict[str, object] | None = None,
        name: str = "",
    ) -> ir.Value:
        name = name or f"{op_type.lower()}{len(self.nodes)}"
        node = ir.node(op_type, inputs, attributes=attributes or {}, name=name)
        node.outputs[0].name = f"{name}.out"
        self.nodes.append(node)
        return node.outputs[0]

    def _weight(self, name: str, array: np.ndarray) -> ir.Value:
        return self.weights.initializer(ir.tensor(array.astype(np.float32)), name)

    def bottleneck(self, x: ir.Value, inputs: int, width: int, stride: int) -> ir.Value:
        outputs = width * EXPANSION
        y = self.relu(self.conv(x, inputs, width, 1))
        y = self.relu(self.conv(y, width, width, 3, stride))
        y = self.conv(y, width, outputs, 1)
        skip = x if inputs == outputs and stride == 1 else self.conv(x, inputs, outputs, 1, stride)
        return self.relu(self.node("Add", [y, skip]))

    def linear(self, x: ir.Value, inputs: int, outputs: int) -> ir.Value:
        weight = self._random.normal(0, 0.01, (outputs, inputs))
        read = [x, self._weight("fc.weight", weight), self._weight("fc.bias", np.zeros(outputs))]
        return self.node("Gemm", read, {"transB": 1}, "fc")


def resnet50(seed: int = 0, classes: int = 1000) -> ir.Model:
    """Return ResNet-50: float32 ``image`` (batch, 3, height, width) to (batch, `classes`)."""
    network = _Network(seed)
    image = ir.val("image", ir.DataType.FLOAT, ["batch", 3, 224, 224])
    x = network.relu(network.conv(image, 3, 64, 7, 2))
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    x = network.node("MaxPool", [x], pool)
    channels = 64
    for stage, (width, count) in enumerate(BLOCKS):
        for block in range(count):
            x = network.bottleneck(x, channels, width, 2 if stage and not block else 1)
            channels = width * EXPANSION
    x = network.node("Flatten", [network.node("GlobalAveragePool", [x])])
    scores = network.linear(x, channels, classes)
    scores.shape, scores.type = ir.Shape(["batch", classes]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [image], [scores], nodes=network.nodes, initializers=network.weights.initializers,
        opset_imports={"": OPSET}, name="resnet50",
    )  # fmt: skip
    return ir.Model(graph, ir_version=8)


def write_resnet50(path: Path, seed: int = 0) -> Path:
    """Write the model to `path` and return it."""
    ir.save(resnet50(seed), path)
    return path
