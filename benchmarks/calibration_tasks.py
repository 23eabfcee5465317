"""The measurements of `benchmarks/calibration.py`, one task per process: ``calibration_tasks.py`` JSON.

The task comes as JSON in the first argument, the figures go as JSON to standard output. CPU seconds cover the
calibration and opening its session. They exclude preparing the graph, loading compiled code, quantizing
afterwards, and the sessions of ONNX Runtime's calibrators. Peak memory is that of the whole process; memory
of the work is the peak less the memory when the work began.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Task:
    """One thing to measure.

    Attributes:
        tool: a key of `TOOLS`.
        model: the float network.
        images: ``.npy`` of float32 inputs.
        count: number of images.
        batch: images per batch, if the tool takes batches.
        test: ``.npz`` with ``x`` and ``y`` to judge the quantized network, or None.
    """

    tool: str
    model: str
    images: str
    count: int
    batch: int
    test: str | None = None

    def batches(self) -> list[dict[str, np.ndarray]]:
        """The images as feeds."""
        images = np.load(self.images)[: self.count]
        name = session_of(self.model).get_inputs()[0].name
        return [{name: images[i : i + self.batch]} for i in range(0, len(images), self.batch)]


class Meter:
    """Adds up the CPU seconds of all threads while a block runs; a nested block is not counted again.

    Also records the memory of the process when the first block began.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.mib_before: float | None = None
        self._depth = 0

    def __enter__(self) -> Meter:
        if self.mib_before is None:
            self.mib_before = memory_mib("VmRSS")
        if not self._depth:
            self._start = cpu_seconds()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += cpu_seconds() - self._start


def cpu_seconds() -> float:
    """CPU seconds of this process, all threads and ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def memory_mib(kind: str) -> float:
    """VmRSS: memory now; VmHWM: its peak, which unlike getrusage's does not include the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def session_of(model: str, threads: int = 0, *, as_written: bool = False) -> ort.InferenceSession:
    """A session; `as_written` computes Q/DQ in float as written."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def plain(task: Task, meter: Meter, threads: int) -> None:
    """Float inference over the images; observes no tensors, and opens its session, as calibration does."""
    feeds = task.batches()
    with meter:
        session = session_of(task.model, threads)
        for feed in feeds:
            session.run(None, feed)


def ours(task: Task, meter: Meter, method: str, folder: Path) -> Path | None:
    """Calibrate with trtbuild; every tensor that the quantizer needs is observed."""
    from trtbuild.calibration import CalibrateOptions, calibrate
    from trtbuild.data import first_samples
    from trtbuild.data.arrays import ArraySource
    from trtbuild.jobs.loading import load, prepare
    from trtbuild.model import input_specs, write_model
    from trtbuild.quantization import insert_qdq, watched_tensors

    artifact = prepare(load(Path(task.model)))
    specs = input_specs(artifact.source)
    images = np.load(task.images)[: task.count]
    source = ArraySource(Path(task.images), {specs[0].name: images}, specs)
    tensors, options = watched_tensors(artifact.model), CalibrateOptions(method=method)
    calibrate(artifact, first_samples(source, 1), tensors, options)  # loads compiled code
    with meter:
        artifact = calibrate(artifact, source, tensors, options)
    if task.test is None:
        return None
    model = insert_qdq(artifact).quantized
    assert model is not None
    return write_model(model, folder / "int8.onnx")[0]


def onnxruntime(task: Task, meter: Meter, method: str, folder: Path) -> Path:
    """``quantize_static`` as its documentation advises for TensorRT; only its calibrator is timed."""
    from onnxruntime import quantization as q

    def timed(*args: Any, **kwargs: Any) -> Any:
        calibrator = create(*args, **kwargs)
        for name in ("collect_data", "compute_data"):
            setattr(calibrator, name, metered(getattr(calibrator, name), meter))
        return calibrator

    # a function of the same name hides this module
    module: Any = importlib.import_module("onnxruntime.quantization.quantize")
    create, module.create_calibrator = module.create_calibrator, timed
    path = folder / "int8.onnx"
    q.quantize_static(
        task.model, path, _Reader(iter(task.batches())), quant_format=q.QuantFormat.QDQ,
        per_channel=True, activation_type=q.QuantType.QInt8, weight_type=q.QuantType.QInt8,
        calibrate_method=q.CalibrationMethod[method], extra_options={"ActivationSymmetric": True},
    )  # fmt: skip
    return path


class _Reader:
    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def modelopt(task: Task, meter: Meter, method: str, folder: Path) -> Path:
    """NVIDIA's ModelOpt for ONNX; its whole call is timed."""
    from modelopt.onnx.quantization import quantize

    name = session_of(task.model).get_inputs()[0].name
    images, path = np.load(task.images)[: task.count], folder / "int8.onnx"
    with meter:
        quantize(
            onnx_path=task.model, quantize_mode="int8", calibration_data={name: images},
            calibration_method=method, calibration_eps=["cpu"], output_path=str(path),
        )  # fmt: skip
    return path


def metered(function: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    """`function` with its calls measured by `meter`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with meter:
            return function(*args, **kwargs)

    return call


def top1(model: str, test: str, *, as_written: bool) -> float:
    """Percent of the test images whose class is right."""
    with np.load(test) as stored:
        images, labels = stored["x"], stored["y"]
    session = session_of(model, as_written=as_written)
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: images[i : i + 50]})[0] for i in range(0, len(images), 50)]
    return 100 * float(np.mean(np.concatenate(found).argmax(axis=1) == labels))


TOOLS: dict[str, Callable[[Task, Meter, Path], Path | None]] = {
    "float, 1 thread": lambda task, meter, _: plain(task, meter, 1),
    "float, a thread per core": lambda task, meter, _: plain(task, meter, 0),
    "trtbuild entropy": lambda task, meter, folder: ours(task, meter, "entropy", folder),
    "trtbuild auto": lambda task, meter, folder: ours(task, meter, "auto", folder),
    "ONNX Runtime Entropy": lambda t, meter, folder: onnxruntime(t, meter, "Entropy", folder),
    "ONNX Runtime MinMax": lambda t, meter, folder: onnxruntime(t, meter, "MinMax", folder),
    "ONNX Runtime Percentile": lambda t, m, folder: onnxruntime(t, m, "Percentile", folder),
    "ModelOpt entropy": lambda task, meter, folder: modelopt(task, meter, "entropy", folder),
    "ModelOpt max": lambda task, meter, folder: modelopt(task, meter, "max", folder),
}


def main() -> None:
    """Do one task."""
    task, meter = Task(**json.loads(sys.argv[1])), Meter()
    logging.disable(logging.WARNING)
    out = os.dup(1)
    os.dup2(2, 1)  # a tool's own output must not mix with the figures
    with tempfile.TemporaryDirectory() as folder:
        quantized = TOOLS[task.tool](task, meter, Path(folder))
        peak = memory_mib("VmHWM")
        accuracy = None
        if task.test is not None:
            judged = task.model if quantized is None else str(quantized)
            onnx.checker.check_model(judged)
            accuracy = top1(judged, task.test, as_written=True)
    assert meter.mib_before is not None
    figures = {
        "cpu_s": meter.seconds,
        "peak_mib": peak,
        "work_mib": peak - meter.mib_before,
        "top1_percent": accuracy,
    }
    os.write(out, json.dumps(figures).encode())


if __name__ == "__main__":
    main()
