"""Networks as protobufs: the same bytes as onnx_ir writes, of everything that a network may hold."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from trtbuild.model.inference import infer_model
from trtbuild.model.protos import to_proto

LONG = "layer/" * 40  # a name whose length takes two bytes

BODIES = """
<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
g (float[N,4] x, bool c) => (float[N,4] y, float[N,2] z)
<float[4] w = {1, 2, 3, 4}>
{
    a = Add(x, w)
    b = If (c) <
        then_branch = t () => (float[N,4] t) { t = Relu(a) },
        else_branch = e () => (float[N,4] e) { e = Neg(a) }
    >
    p, q = Split <axis = 1, num_outputs = 2> (b)
    d = Clip(p, , )
    s = SequenceConstruct(p, d)
    z = own.Thing <kind = "k", sizes = [1, 2], scale = 0.5> (d, q)
    y = Identity(b)
}
"""

FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
g (float[4] x) => (float[4] y) { y = own.Twice <by = 2.0> (x) }
<domain: "own", opset_import: ["" : 21]>
Twice <by> (a) => (b) { c = Constant <value_float: float = @by> () b = Mul(a, c) }
"""


def parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def remarked() -> ir.Model:
    """Remarks, names and marks on everything, and outputs and operands that are left out."""
    model = parsed(BODIES)
    first, *_, last = model.graph
    first.name, first.doc_string, last.overload = LONG, "what it does", "other"
    first.metadata_props.update(b="2", a="1")
    output = first.outputs[0]
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", None])
    output.shape.set_denotation(0, "DATA_BATCH")
    last.inputs[0].producer().outputs[0].doc_string = "a tensor"
    other = model.graph[2].outputs[0]
    other.type = ir.TensorType(ir.DataType.FLOAT, denotation="IMAGE")
    other.metadata_props["key"] = "of a tensor"
    model.graph[2].outputs[1].name = ""  # left out
    model.graph.metadata_props["of"] = "the graph"
    model.metadata_props["of"] = "the network"
    model.producer_name, model.doc_string = "somebody", "a network"
    return model


def ranged() -> ir.Model:
    proto = onnx.parser.parse_model(BODIES)
    remark = proto.graph.quantization_annotation.add(tensor_name="a")
    remark.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    return ir.from_proto(proto)


@pytest.mark.parametrize(
    "model", [parsed(BODIES), parsed(FUNCTIONS), remarked(), ranged()],
    ids=["bodies", "functions", "remarks", "ranges"],
)  # fmt: skip
def test_a_network_is_written_as_by_onnx_ir(model: ir.Model) -> None:
    for _ in range(2):
        wanted = ir.to_proto(model).SerializeToString(deterministic=True)
        assert to_proto(model).SerializeToString(deterministic=True) == wanted
        infer_model(model)


FOUR = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize(
    "tensor",
    [
        ir.Tensor(FOUR),
        ir.Tensor(FOUR, doc_string="four"),
        ir.Tensor(FOUR, metadata_props={"key": "of a weight"}),
        ir.tensor(["a", "b", "c", "d"]),
        ir.ExternalTensor("file", 64, 16, ir.DataType.FLOAT, shape=ir.Shape([4]), name="w"),
        ir.ExternalTensor("file", None, None, ir.DataType.FLOAT, shape=ir.Shape([4]), name="w"),
    ],
    ids=["array", "said", "remarked", "texts", "in a file", "a whole file"],
)
def test_weights_are_written_as_by_onnx_ir(tensor: ir.TensorProtocol) -> None:
    model = parsed(BODIES)
    model.graph.initializers["w"].const_value = tensor
    model.graph.inputs.append(model.graph.initializers["w"])  # that a caller may override
    wanted = ir.to_proto(model).SerializeToString(deterministic=True)
    found = to_proto(model)
    assert found.SerializeToString(deterministic=True) == wanted
    assert [one.name for one in found.graph.initializer] == ["w"]
