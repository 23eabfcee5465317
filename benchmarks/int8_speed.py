"""The speedup of ONNX Runtime's INT8 engine over the float network on this machine's CPU.

    python benchmarks/int8_speed.py                      ResNet-50, random weights, batch 1
    python benchmarks/int8_speed.py squeezenet11.onnx    any network with one float input

Both networks take turns in one process. Ranges come from random images: speed does not depend on them,
and accuracy is not measured. The result is JSON on standard output.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from resnet50 import write_resnet50

from trtbuild.backends.base import BuildRequest
from trtbuild.backends.onnxruntime import OnnxRuntimeBackend
from trtbuild.calibration import calibrate
from trtbuild.data.random_data import RandomSource
from trtbuild.jobs.loading import load, prepare
from trtbuild.latency.measure import MeasureOptions, measure
from trtbuild.latency.stats import ratio, summarize
from trtbuild.model import input_specs
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.onnxruntime import open_session

INTEGER = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
FLOAT = ("Conv", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul")


def kernels(path: Path, folder: Path) -> dict[str, int]:
    """Operators of the optimized graph of `path` in ONNX Runtime."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimized.onnx", load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node))


def compare(model: Path, folder: Path) -> dict[str, Any]:
    """Build the INT8 engine of `model`, and time it against `model` in turns."""
    artifact = prepare(load(model))
    source = RandomSource(input_specs(artifact.source), count=4)
    artifact = insert_qdq(calibrate(artifact, source, watched_tensors(artifact.model)))
    backend = OnnxRuntimeBackend()
    engine = backend.build(BuildRequest(artifact, folder))
    sessions = {"float": open_session(model), "int8": backend.open(engine.path)}
    feeds = [sample.load() for sample in source]
    samples = measure(sessions, feeds, MeasureOptions(duration_ms=10_000))
    times = ratio(samples["float"], samples["int8"])
    found = kernels(engine.path, folder)
    return {
        "model": model.name,
        "speedup": {"value": 1 / times.value, "low": 1 / times.high, "high": 1 / times.low},
        "median_ms": {name: summarize(taken).median_ms for name, taken in samples.items()},
        "integer_kernels": {name: found[name] for name in INTEGER if name in found},
        "float_kernels": {name: found[name] for name in FLOAT if name in found},
    }


def main() -> None:
    """Time the networks named on the command line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [Path(given) for given in sys.argv[1:]] or [
            write_resnet50(folder / "resnet50.onnx")
        ]
        result = {
            "machine": {
                "processor": platform.machine(),
                "cores": len(os.sched_getaffinity(0)),
                "load_average": os.getloadavg()[0],
            },
            "onnxruntime": ort.__version__,
            "networks": [compare(model, folder) for model in models],
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
