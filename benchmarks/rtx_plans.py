"""Builds of networks by NVIDIA's compiler in float, INT8, and INT8 with FP16: success, seconds, MB.

    python benchmarks/rtx_plans.py FOLDER... [--compute-capability 8.9,12.0] [--json FILE]

Every ``*.onnx`` below the folders is prepared, calibrated on a few images, quantized and built by TensorRT
for RTX, which needs no GPU (extra ``rtx``). Data is ``NAME_calib.npz`` beside a network, else random: whether
a network builds does not depend on the ranges. Dynamic dimensions get the data's extents. The result is a
table on standard output. A network that also fails in float does not count against INT8. Exit status 1 when
a network builds in float and not in INT8.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbuild.backends.base import BuildRequest
from trtbuild.backends.tensorrt import TensorRTBackend
from trtbuild.calibration import calibrate
from trtbuild.data import DataRecipe, batches, open_data
from trtbuild.errors import TrtbuildError
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import input_specs
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.plan import PlacementRequest
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.runtime.tensorrt.versions import RTX
from trtbuild.target import FOR_RTX

if TYPE_CHECKING:
    from trtbuild.artifact import Artifact
    from trtbuild.data import Source

_FEW = 4


@dataclass
class Row:
    """One network; sizes in MB (10^6 bytes), seconds of the INT8 build, and why a form does not build.

    The builder itself reports `weights_mb` of each form; the rest of a plan is code and constants.
    """

    network: str
    nodes: int = 0
    int8_groups: int = 0
    seconds: float | None = None
    float_mb: float | None = None
    int8_mb: float | None = None
    int8_fp16_mb: float | None = None
    weights_mb: dict[str, float] = field(default_factory=dict)
    refusal: str = ""

    @property
    def lost(self) -> bool:
        """Whether a network that builds in float does not build in INT8, or in INT8 with FP16."""
        return self.float_mb is not None and None in (self.int8_mb, self.int8_fp16_mb)

    def line(self) -> str:
        """A row of a Markdown table."""
        sizes = (self.float_mb, self.int8_mb, self.int8_fp16_mb)
        weights = (self.weights_mb.get(form) for form in ("float", "INT8", "INT8 + FP16"))
        figures = (self.seconds, *sizes, *weights)
        cells = ["-" if figure is None else f"{figure:.1f}" for figure in figures]
        return f"| {self.network} | {self.nodes} | {self.int8_groups} | {' | '.join(cells)} |"


HEAD = """\
| network | nodes | INT8 groups | INT8 built in, s | plan, MB: float | INT8 | INT8 + FP16 \
| weights, MB: float | INT8 | INT8 + FP16 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def source_of(path: Path, artifact: Artifact) -> Source:
    """A few samples for a network: from the file beside it, else random."""
    beside = path.with_name(f"{path.stem}_calib.npz")
    named = str(beside) if beside.is_file() else None
    recipe = DataRecipe(data=named, random_data=named is None, num_images=_FEW)
    source = open_data(recipe, input_specs(artifact.source), calibrates=True).calibration
    assert source is not None
    return source


def plan_mb(artifact: Artifact, options: TensorRTOptions, row: Row, *, fp16: bool) -> float | None:
    """Build a plan and return its size; if the build fails, None, with the reason in the row."""
    with tempfile.TemporaryDirectory() as folder:
        request = BuildRequest(artifact, Path(folder), fp16=fp16, options=options)
        started = time.monotonic()
        try:
            engine = TensorRTBackend(product=RTX).build(request)
        except TrtbuildError as error:
            row.refusal = row.refusal or " ".join(str(error).split())[:400]
            return None
        if artifact.quantized is not None and not fp16:
            row.seconds = time.monotonic() - started
        form = "INT8" if artifact.quantized is not None else "float"
        weights = engine.details["weights_bytes"]
        row.weights_mb[form + (" + FP16" if fp16 else "")] = (weights or 0) / 1e6
        return engine.path.stat().st_size / 1e6


def measure(path: Path, capabilities: tuple[str, ...]) -> Row:
    """Build one network in its three forms."""
    row = Row(path.stem)
    try:
        artifact = replace(prepare(load(path)), request=PlacementRequest(target=FOR_RTX))
        row.nodes = len(artifact.model.graph)
        source = source_of(path, artifact)
        feeds = next(iter(batches(source, 1))).feeds
        specs = input_specs(artifact.source)
        dynamic = any(not isinstance(dim, int) for spec in specs for dim in spec.dims)
        shapes = [f"{name}={'x'.join(map(str, value.shape))}" for name, value in feeds.items()]
        options = TensorRTOptions(
            compute_capabilities=capabilities, shapes=tuple(shapes) if dynamic else ()
        )
        row.float_mb = plan_mb(artifact, options, row, fp16=False)
        wanted = watched_tensors(artifact.model, artifact.request)
        quantized = insert_qdq(calibrate(artifact, source, wanted))
        row.int8_groups = sum(group.int8 for group in quantized.groups)
        row.int8_mb = plan_mb(quantized, options, row, fp16=False)
        row.int8_fp16_mb = plan_mb(quantized, options, row, fp16=True)
    except TrtbuildError as error:
        row.refusal = row.refusal or " ".join(str(error).split())[:400]
    return row


def main() -> int:
    """Measure the networks in the folders named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--compute-capability", default="8.9,12.0")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    print(HEAD, flush=True)
    for path in sorted(path for folder in given.folders for path in folder.rglob("*.onnx")):
        rows.append(measure(path, tuple(given.compute_capability.split(","))))
        print(rows[-1].line(), flush=True)
    print()
    for row in rows:
        if row.refusal:
            where = "INT8 alone" if row.lost else "float, too"
            print(f"{row.network} ({where}): {row.refusal}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
