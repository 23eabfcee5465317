"""Convolutions of every shape against their adjoint: <v, f(d)> = <gradient, d>, since they are linear."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtbuild.gradients import backward_network
from trtbuild.runtime.onnxruntime import Execution, open_session


@st.composite
def windows(draw, operator):
    count = draw(st.integers(1, 3 if operator != "ConvTranspose" else 2))
    each = lambda low, high: [draw(st.integers(low, high)) for _ in range(count)]  # noqa: E731
    kernel, strides = each(1, 3), each(1, 3)
    dilations = each(1, 2)
    if operator == "AveragePool":
        # a stride at most as wide as the window: else ONNX and ONNX Runtime disagree
        strides, dilations = [min(s, k) for s, k in zip(strides, kernel)], [1] * count
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations)]
    pads = [draw(st.integers(0, span - 1)) for span in spans * 2]
    sizes = [draw(st.integers(span, span + 5)) for span in spans]
    found = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "group": draw(st.sampled_from([1, 2])),
    }
    if operator == "ConvTranspose":
        found["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in strides]
    elif draw(st.booleans()):
        found["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        del found["pads"]
        if operator == "Conv":
            found["dilations"] = [1] * count  # ONNX Runtime pads for a kernel that is not dilated
    return found, sizes


def network(operator, attributes, sizes, weight, *, dynamic):
    shape = [2, 4, *sizes]
    dims = [f"d{i}" for i in range(len(shape))] if dynamic else shape
    dims[1] = 4
    values = ["x", "w"] if weight is not None else ["x"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, values, ["y"], **attributes)],
        "linear",
        [onnx.helper.make_tensor_value_info("x", 1, dims)],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [] if weight is None else [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 19)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)), shape


def check_adjoint(operator, attributes, sizes, weight, seed, *, dynamic):
    model, shape = network(operator, attributes, sizes, weight, dynamic=dynamic)
    rng = np.random.default_rng(seed)
    d = rng.normal(size=shape).astype(np.float32)
    y = open_session(model, Execution.REFERENCE, threads=1).run({"x": d})["y"]
    v = rng.normal(size=y.shape).astype(np.float32)
    backward = backward_network(model, ["x"])
    session = open_session(backward.model, Execution.REFERENCE, threads=1)
    found = session.run({"x": d, backward.seeds["y"]: v})[backward.gradients["x"]]
    assert found.shape == d.shape
    left, right = (v.astype(np.float64) * y).sum(), (found.astype(np.float64) * d).sum()
    # both sums are of the same products in another order, each within some 30 roundings of float32
    size = np.abs(v * y).sum() + np.abs(found * d).sum() + 1.0
    assert abs(left - right) <= 1e-5 * size


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
@settings(max_examples=60)
@given(data=st.data())
def test_convolution(operator, dynamic, data):
    attributes, sizes = data.draw(windows(operator))
    group = attributes["group"]
    shape = (6, 4 // group) if operator == "Conv" else (4, 6 // group)
    weight = np.random.default_rng(3).normal(size=(*shape, *attributes["kernel_shape"]))
    check_adjoint(operator, attributes, sizes, weight.astype(np.float32), 4, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@settings(max_examples=60)
@given(data=st.data())
def test_average_pool(dynamic, data):
    attributes, sizes = data.draw(windows("AveragePool"))
    del attributes["group"]
    attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    if "pads" in attributes:
        attributes["ceil_mode"] = data.draw(st.integers(0, 1))
    if attributes.get("ceil_mode"):  # no window begins in the padding: they disagree there, too
        attributes["pads"][len(sizes) :] = [0] * len(sizes)
    check_adjoint("AveragePool", attributes, sizes, None, 5, dynamic=dynamic)
