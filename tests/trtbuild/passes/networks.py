"""Small networks as ONNX text with seeded weights, and their outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from trtbuild.passes import OptimizeOptions, optimize


def network(text, weights=None, opset=17, seed=0):
    """Read ONNX text ``name (inputs) => (outputs) { nodes }`` and give it weights.

    `weights` maps a name to an array, or to dims that are filled with normal values.
    """
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    model = onnx.parser.parse_model(head + text)
    random = np.random.default_rng(seed)
    for name, content in (weights or {}).items():
        drawn = isinstance(content, tuple)
        array = random.standard_normal(content).astype(np.float32) if drawn else content
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def answers(model, seed=0, **sizes):
    """Run a network in ONNX Runtime, its optimisation off, on inputs of order one."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    proto = ir.to_proto(model)
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    feeds = {}
    for info in session.get_inputs():
        shape = [dim if isinstance(dim, int) else sizes.get(dim, 2) for dim in info.shape]
        if info.type == "tensor(bool)":
            feeds[info.name] = np.array(seed % 2 == 0)
        elif info.type in kinds:
            feeds[info.name] = random.standard_normal(shape).astype(kinds[info.type])
        else:
            feeds[info.name] = random.integers(-9, 9, shape).astype(info.type[7:-1])
    return session.run(None, feeds)


def optimized(model, **options):
    """Optimise without the safety net, so that a wrong pass shows; check answers and interface."""
    result = optimize(model, OptimizeOptions(check=False, **options))
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    for seed in (0, 1):
        for wanted, got in zip(answers(model, seed), answers(result.model, seed)):
            assert wanted.dtype == got.dtype
            assert wanted.shape == got.shape
            if wanted.dtype.kind != "f":
                np.testing.assert_array_equal(got, wanted)
                continue
            # one more rounding of each weight, summed over at most some hundred products
            eps = 2e-2 if wanted.dtype == np.float16 else 1e-5
            largest = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
            np.testing.assert_allclose(got, wanted, rtol=eps, atol=eps * largest)
    return result


def ops(result):
    return {op: count for op, count in result.after.nodes.items() if op != "Constant"}
