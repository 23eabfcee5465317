"""NVIDIA's own parser and builder, of TensorRT for RTX: they refuse no form of an accepted source network.

All networks and graph cases of the shared folder are parsed unchanged, prepared, in INT8, and in INT8 with
FP16. One in twelve of the cases and the smaller networks are also built, and so are known architectures, from
both of PyTorch's exporters.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calibrators import Calibration, TensorRange
from trtbuild.backends.tensorrt.builder import Blueprint, build_plan
from trtbuild.backends.tensorrt.profiles import profiles_for
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.errors import ModelError
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import input_specs, temporary_file
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.passes import OptimizeOptions
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.quantization.half import to_half
from trtbuild.runtime.tensorrt.versions import RTX, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from trtbuild.artifact import Artifact

pytestmark = pytest.mark.nightly
BUILT_CASES = 12  # one in twelve is built
PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True, scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT for RTX, the extra 'rtx'")


def forms(path: Path) -> Iterator[tuple[str, ir.Model]]:
    """The prepared network, INT8, and INT8 with FP16, with a range for every tensor."""
    artifact = prepare(load(path), OptimizeOptions(check=False))  # other tests compare values
    yield "prepared", artifact.whole(artifact.model)
    try:
        wanted = watched_tensors(artifact.model)
    except ModelError:  # it holds Q/DQ already
        return
    if not wanted:
        return
    ranges = {
        name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 1000, 0) for name in sorted(wanted)
    }
    artifact = insert_qdq(artifact.with_calibration(Calibration("minmax", ranges)))
    assert artifact.quantized is not None
    yield "int8", artifact.whole(artifact.quantized)
    yield "int8 fp16", artifact.whole(to_half(artifact.quantized, dict.fromkeys(ranges, 4.0))[0])


@dataclass
class Tally:
    """Parsed and built networks by form, and NVIDIA's refusals of forms of accepted networks."""

    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def look_at(self, path: Path, *, build: bool) -> None:
        tensorrt = installed(RTX)
        if find_refusals(tensorrt, path).refused:
            self.counts["source refused"] += 1
            return
        self.counts["source parsed"] += 1
        build = build and builds(path)
        self.counts["source built"] += build
        for name, model in forms(path):
            with temporary_file(model) as file:
                refused = find_refusals(tensorrt, file).refused
                if refused:
                    self.lost.append(f"{path.name}, {name}: {refused[0]}")
                elif build and not builds(file):
                    self.lost.append(f"{path.name}, {name}: not built")
                self.counts[f"{name} parsed"] += not refused
                self.counts[f"{name} built"] += build

    def judge(self) -> None:
        print(dict(self.counts))
        assert self.counts["int8 fp16 parsed"]
        assert not self.lost, "\n".join(self.lost)


def builds(path: Path) -> bool:
    """Whether a plan can be built, with 2 for dynamic dims."""
    artifact: Artifact = load(path)
    specs = input_specs(artifact.source)
    shapes = tuple(
        f"{spec.name}={'x'.join(str(d if isinstance(d, int) else 2) for d in spec.dims)}"
        for spec in specs
        if any(not isinstance(dim, int) for dim in spec.dims)
    )
    options = replace(TensorRTOptions(), optimization_level=0)
    with temporary_file(artifact.whole(artifact.source)) as file:
        blueprint = Blueprint(file, options, profiles=profiles_for(shapes, specs))
        try:
            build_plan(installed(RTX), blueprint)
        except ModelError:
            return False
    return True


def test_no_graph_case_is_lost(shared: Path) -> None:
    cases = json.loads((shared / "graph-cases" / "cases.json").read_text())
    cases = cases["cases"] if isinstance(cases, dict) else cases
    paths = [shared / "graph-cases" / case["model"] for case in cases]
    tally = Tally()
    for number, path in enumerate(paths):
        with contextlib.suppress(ModelError):  # trtbuild refuses it: it is no network for inference
            tally.look_at(path, build=number % BUILT_CASES == 0)
    tally.judge()


def test_no_network_is_lost(shared: Path) -> None:
    networks = sorted((shared / "data").rglob("*.onnx"))
    assert networks
    tally = Tally()
    for path in networks:
        tally.look_at(path, build=path.stat().st_size < 2**21)
    tally.judge()


@pytest.mark.parametrize("part", ["own", "torchvision", "timm", "transformers"])
def test_no_architecture_is_lost(part: str, tmp_path: Path) -> None:
    """The networks of the benchmark's table: its own, and those of installed packages."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    if part != "own":
        pytest.importorskip(part)
    file = tmp_path / "rows.json"
    script = PROJECT / "benchmarks" / "architecture_zoo.py"
    wanted = ["--own"] if part == "own" else [f"{part}/"]
    done = subprocess.run(
        [sys.executable, str(script), *wanted, "--json", str(file)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    rows = json.loads(file.read_text())
    taken = [row for row in rows if row["refused"] and not any(row["refused"].values())]
    assert {row["network"] for row in taken if row["plan_mb"]} == {row["network"] for row in taken}
    if part == "own":
        assert {row["opset"] for row in taken} == set(range(13, 24))
