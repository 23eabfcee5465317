"""The measurements of `benchmarks/accuracy.py`, one task per process: ``accuracy_tasks.py`` JSON.

The task comes as JSON in the first argument, the figures go as JSON to standard output. Seconds cover the
tool's whole call, as wall time and as time of all CPUs; peak memory is that of the process when the tool is
done. Then trtbuild's own judges compare the result with the float network on data that no tool has seen.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import onnx
import onnx.version_converter
from calibration_tasks import cpu_seconds, memory_mib

from trtbuild.data import open_data
from trtbuild.jobs import ranges
from trtbuild.jobs.compare import task_of, verification_batches
from trtbuild.jobs.engine import build_engine
from trtbuild.jobs.loading import load
from trtbuild.model import input_specs
from trtbuild.model.parts import output_parts
from trtbuild.options.compare import TaskOptions
from trtbuild.options.data import DataRecipe
from trtbuild.options.effort import Effort
from trtbuild.recipes import EngineRecipe
from trtbuild.runtime.onnxruntime import Execution, open_session
from trtbuild.verification.compare import Comparison, ComparisonOptions, compare_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trtbuild.runtime.session import Session

Forms = dict[str, tuple[Path, Execution]]

TENSORRT_FORM, PORTABLE = "TensorRT's form", "portable engine"
# Parts of a build's record: the changes besides ranges, and the share of the work that stays in float.
_MOVES = "moves"
# The share of the calibration data that a seed leaves.
SEEDED_SHARE = 0.5
_PER_CHANNEL_OPSET = 13
PATHS = frozenset({"model", "calibration", "evaluation", "labels"})


@dataclass(frozen=True)
class Made:
    """The result of a tool.

    Attributes:
        forms: the networks, and how each is run.
        moves: its other changes than ranges, in its own words; empty where it reports none.
    """

    forms: Forms
    moves: str = ""


@dataclass(frozen=True)
class Work:
    """One network given to one tool.

    Attributes:
        tool: a key of `TOOLS`.
        model: the float network.
        calibration, evaluation: ``.npz`` with one array per input, for calibrating and for judging.
        labels: ``.npy`` with the class of each sample of `evaluation`, or None.
        seed: draws the part of the calibration data that is used; None uses all of it.
        unlimited: whether a search has no time limit.
    """

    tool: str
    model: Path
    calibration: Path
    evaluation: Path
    labels: Path | None = None
    seed: int | None = None
    unlimited: bool = False

    def feeds(self) -> dict[str, np.ndarray]:
        """The part of the calibration data that the seed draws."""
        with np.load(self.calibration) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if self.seed is None:
            return arrays
        count = len(next(iter(arrays.values())))
        drawn = np.random.default_rng(self.seed).permutation(count)[: round(SEEDED_SHARE * count)]
        return {name: array[np.sort(drawn)] for name, array in arrays.items()}


def ours(work: Work, effort: Effort, folder: Path) -> Made:
    """``trtbuild engine --int8 --effort ...``, with all other defaults and without measuring latency."""
    data = folder / "calibration.npz"
    np.savez(data, **work.feeds())  # type: ignore[arg-type]
    recipe = EngineRecipe(
        model=work.model, output=folder, data=DataRecipe(data=str(data)), effort=effort,
        backend="onnxruntime", latency=None,
    )  # fmt: skip
    with mock.patch.object(ranges, "seconds_for", no_limit) if work.unlimited else nullcontext():
        built = build_engine(recipe)
    forms = {
        TENSORRT_FORM: (next(folder.glob("*.int8.onnx")), Execution.REFERENCE),
        PORTABLE: (next(folder.glob("*.onnxruntime.onnx")), Execution.FAST),
    }
    said = [record.summary for record in built.artifact.history if record.stage == _MOVES]
    return Made(forms, "; ".join(said))


def no_limit(effort: Effort, calibration_seconds: float) -> float:
    """Return infinity, in place of the seconds that a search may take."""
    del effort, calibration_seconds
    return float("inf")


def onnxruntime(work: Work, method: str, folder: Path) -> Made:
    """``quantize_static`` as its documentation advises for TensorRT, after its own preparation.

    Scales per channel need opset 13; ONNX first converts networks of an older opset.
    """
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given, prepared, path = (folder / f"{name}.onnx" for name in ("given", "prepared", "int8"))
    model = onnx.load(work.model)
    if next(one.version for one in model.opset_import if not one.domain) < _PER_CHANNEL_OPSET:
        model = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
    onnx.save(model, given)
    quant_pre_process(given, prepared, skip_symbolic_shape=True)
    q.quantize_static(
        prepared, path, _Reader(work.feeds()), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QInt8, weight_type=q.QuantType.QInt8,
        calibrate_method=q.CalibrationMethod[method], extra_options={"ActivationSymmetric": True},
    )  # fmt: skip
    return Made({TENSORRT_FORM: (path, Execution.REFERENCE)})


class _Reader:
    """Gives the samples one by one, and can start again."""

    def __init__(self, feeds: Mapping[str, np.ndarray]) -> None:
        self._all = feeds
        self.rewind()

    def rewind(self) -> None:
        self._feeds = self._samples()

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)

    def _samples(self) -> Iterator[dict[str, np.ndarray]]:
        for row in range(len(next(iter(self._all.values())))):
            yield {name: array[row : row + 1] for name, array in self._all.items()}


def modelopt(work: Work, method: str, folder: Path) -> Made:
    """NVIDIA's ModelOpt for ONNX; layers not in INT8 stay in FP32."""
    from modelopt.onnx.quantization import quantize

    path = folder / "int8.onnx"
    quantize(
        onnx_path=str(work.model), quantize_mode="int8", calibration_data=work.feeds(),
        calibration_method=method, calibration_eps=["cpu"], high_precision_dtype="fp32",
        output_path=str(path),
    )  # fmt: skip
    return Made({TENSORRT_FORM: (path, Execution.REFERENCE)})


TOOLS: dict[str, Callable[[Work, Path], Made]] = {
    "trtbuild fast": lambda work, folder: ours(work, Effort.FAST, folder),
    "trtbuild normal": lambda work, folder: ours(work, Effort.NORMAL, folder),
    "trtbuild high": lambda work, folder: ours(work, Effort.HIGH, folder),
    "ONNX Runtime MinMax": lambda work, folder: onnxruntime(work, "MinMax", folder),
    "ONNX Runtime Entropy": lambda work, folder: onnxruntime(work, "Entropy", folder),
    "ONNX Runtime Percentile": lambda work, folder: onnxruntime(work, "Percentile", folder),
    "ModelOpt entropy": lambda work, folder: modelopt(work, "entropy", folder),
    "ModelOpt max": lambda work, folder: modelopt(work, "max", folder),
}


def judged(work: Work, forms: Forms) -> dict[str, Comparison]:
    """Compare each form with the float network, by the task found from the network's graph."""
    network = load(work.model).source
    inputs = input_specs(network)
    recipe = DataRecipe(data=str(work.evaluation), labels=work.labels)
    source = open_data(recipe, inputs, calibrates=False).verification
    sessions: dict[str, Session] = {
        name: open_session(path, execution) for name, (path, execution) in forms.items()
    }
    return compare_each(
        open_session(network),
        sessions,
        verification_batches(inputs, source, 8),
        ComparisonOptions(make_task=task_of(network, source, TaskOptions())),
        parts=output_parts(network),
    )


def figures(found: Comparison) -> dict[str, Any]:
    """The task's figure, and the SQNR of the worst part of an output."""
    score = None if found.task is None else found.task.main
    sqnr = [(o.judged_sqnr_db.value, o.judged) for o in found.outputs if o.judged_sqnr_db]
    least, part = min(sqnr, default=(None, ""))
    return {
        "task": None if found.task is None else found.task.task,
        "figure": None if score is None else {"name": score.name, **asdict(score.estimate)},
        "drop": None if found.accuracy is None else asdict(found.accuracy.drop_points),
        "samples": found.num_images,
        "sqnr_db": least,
        "part": part,
    }


def main() -> None:
    """Do one task."""
    given = json.loads(sys.argv[1])
    paths = {name: Path(given.pop(name)) for name in given.keys() & PATHS}
    work = Work(**given, **paths)
    logging.disable(logging.WARNING)
    out = os.dup(1)
    os.dup2(2, 1)  # a tool's own output must not mix with the figures
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), cpu_seconds()
        made = TOOLS[work.tool](work, Path(folder))
        costs = {
            "seconds": time.perf_counter() - started,
            "cpu_s": cpu_seconds() - cpu,
            "peak_mib": memory_mib("VmHWM"),
        }
        done = {name: figures(found) for name, found in judged(work, made.forms).items()}
    os.write(out, json.dumps({**costs, "moves": made.moves, "forms": done}).encode())


if __name__ == "__main__":
    main()
