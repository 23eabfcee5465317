"""Test networks of the onnx package are read and optimised without wrong results or crashes."""

from __future__ import annotations

import importlib
import itertools
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.backend.test.loader import load_model_tests

from trtbuild.errors import TrtbuildError
from trtbuild.model import read_model, read_unchanged
from trtbuild.passes import OptimizeOptions, optimize

pytestmark = pytest.mark.nightly


def run(content, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, feeds)


SHARES = 8  # parts of the networks of a kind: each test shows its name while it runs


def shipped(kind):
    """Yield name, network and feeds of the package's files."""
    for case in load_model_tests(kind=kind):
        folder = Path(case.model_dir)
        proto = onnx.load(folder / "model.onnx")
        names = [value.name for value in proto.graph.input]
        feeds = {}
        for number, name in enumerate(names):
            tensor = onnx.TensorProto()
            file = folder / "test_data_set_0" / f"input_{number}.pb"
            if file.is_file():
                tensor.ParseFromString(file.read_bytes())
                feeds[name] = onnx.numpy_helper.to_array(tensor)
        yield case.name, proto, feeds


def made():
    """Yield the same for the package's generated networks of one operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = importlib.import_module("onnx.backend.test.case.node").collect_testcases(None)
    for case in cases:
        names = [value.name for value in case.model.graph.input]
        yield case.name, case.model, dict(zip(names, case.data_sets[0][0]))


def problem(proto, feeds, folder, read):
    """Return what is wrong with the optimised network; None if nothing is, or if that cannot be decided."""
    original = proto.SerializeToString()
    try:
        wanted = run(original, feeds)
    except Exception:  # noqa: BLE001 - ONNX Runtime does not have every operator
        return None
    path = folder / "model.onnx"
    path.write_bytes(original)
    try:
        model = read(path)
    except TrtbuildError:
        return None  # a proper error
    reason = differs(model, wanted, feeds, check=False)
    # tried without the safety net first, since it costs a process; it may catch a fault
    return reason and differs(model, wanted, feeds, check=True)


def differs(model, wanted, feeds, *, check):
    result = optimize(model, OptimizeOptions(check=check)).model
    try:
        got = run(ir.to_proto(result).SerializeToString(), feeds)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base
        return f"{type(error).__name__}: {error}"[:200]
    for one, other in zip(wanted, got):
        if isinstance(one, np.ndarray) and one.dtype.kind == "f":
            # the same operators, but a fold rounds once more
            eps = 1e-2 if one.dtype.itemsize < 4 else 1e-4
            if not np.allclose(one, other, rtol=eps, atol=eps, equal_nan=True):
                return "other values"
        elif str(one) != str(other):  # integers, texts, sequences
            return "other values"
    return None


@pytest.mark.parametrize("read", [read_model, read_unchanged])
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("kind", ["simple", "pytorch-operator", "pytorch-converted", "node"])
def test_nothing_crashes_and_nothing_is_wrong(kind, share, read, tmp_path):
    found = {}
    cases = made() if kind == "node" else shipped(kind)
    for name, proto, feeds in itertools.islice(cases, share, None, SHARES):
        try:
            text = problem(proto, feeds, tmp_path, read)
        except Exception as error:  # noqa: BLE001 - all are listed together
            text = f"{type(error).__name__}: {error}"[:200]
        if text:
            found[name] = text
    assert not found, "\n".join(f"{name}: {text}" for name, text in found.items())
