"""Outputs of convolutions with a scale for each channel, against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.plan import GRAPH_OUTPUT, Consumer, OutputSteps, Plan, QuantParams
from trtbuild.quantization.insert import insert
from trtbuild.quantization.output_channels import with_steps
from trtbuild.runtime.onnxruntime import Execution, open_session

CHANNELS = 8
WEIGHTS = {"w": (CHANNELS, 3, 3, 3), "b": (CHANNELS,), "line": (CHANNELS, 3, 3)}


def network(nodes: str, names: list[str]) -> ir.Model:
    shape, rest = ("N, 3, 9", "N, C, H") if "line" in nodes else ("N, 3, 9, 9", "N, C, H, W")
    ends = ", ".join(f"float[{rest}] {name}" for name in names)
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> n (float[{shape}] x) => ({ends}) {{ {nodes} }}'
    )
    rng = np.random.default_rng(0)
    for name, dims in WEIGHTS.items():
        if f" {name}" in nodes:
            content = rng.normal(size=dims).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    for node in proto.graph.node:
        node.name = f"to {node.output[0]}"
    if "ABSENT" in nodes:
        proto.graph.node[0].input[2] = ""
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def outputs(model: ir.Model) -> dict[str, np.ndarray]:
    (given,) = model.graph.inputs
    shape = [2, *(int(dim) for dim in list(given.shape)[1:])]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return open_session(model, Execution.REFERENCE).run({given.name: image})


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("y = Conv (x, w, b) z = Neg (y)", ["z"]),
        ("y = Conv (x, w) z = Neg (y)", ["z"]),
        ("y = Conv (x, w, ABSENT) z = Neg (y)", ["z"]),
        ("c = Conv (x, w, b) y = Relu (c) z = Neg (y)", ["z"]),
        ("y = Conv (x, line, b) z = Neg (y)", ["z"]),
        ("y = Conv (x, w, b)", ["y"]),
        ("y = Conv (x, w, b) z = Neg (y)", ["y", "z"]),
    ],
)
def test_each_channel_is_rounded_with_its_own_scale(nodes: str, names: list[str]) -> None:
    model = network(nodes, names)
    own = OutputSteps(np.linspace(0.02, 0.09, CHANNELS).astype(np.float32), 100)
    readers = {"y": Consumer(GRAPH_OUTPUT, 0), "z": Consumer("to z", 0)}
    consumers = {"y": frozenset(readers[name] for name in names)}
    plan = Plan(consumers, (), {"y": QuantParams(np.float32(1), 0, ir.DataType.UINT8)})
    float_outputs, found = outputs(model), outputs(insert(*with_steps(model, plan, {"y": own})))
    assert found.keys() == float_outputs.keys()
    for name, values in float_outputs.items():
        sign = -1 if name == "z" else 1
        scales = own.scales.astype(np.float64).reshape(-1, *[1] * (values.ndim - 2))
        steps = np.clip(np.rint(sign * values / scales) + 100, 0, 255) - 100
        # the folded sums are rounded elsewhere, which can move a tie by a step
        off = np.rint(sign * found[name] / scales) - steps
        assert np.count_nonzero(off) <= 2
        assert np.abs(off).max() <= 1
        assert np.abs(sign * found[name] - (steps + off) * scales).max() < 1e-5
        assert steps.max() == 155  # the end of the range occurs
