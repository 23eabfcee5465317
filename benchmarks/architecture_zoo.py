"""Does NVIDIA's compiler accept trtbuild's forms of known architectures? Definitions with random weights.

    python benchmarks/architecture_zoo.py [NAME...] [--builds one|all|none] [--own] [--json FILE]
    python benchmarks/architecture_zoo.py --page FILE...

Small networks of our own (``benchmarks/architectures``), and those of torchvision, timm and transformers as
far as these are installed (trtbuild needs none of them), are written by both of PyTorch's exporters, in
opsets 13 to 23, with a fixed and a dynamic batch; prepared; and quantized with made-up ranges for TensorRT
for RTX and for TensorRT 11. The parser of TensorRT for RTX (extra ``rtx``, no GPU) reads them unchanged,
prepared, in INT8, and in INT8 with FP16. For one export of each network, or for all, its builder makes plans
for compute capabilities 8.9 and 12.0. Networks of our own are also compared before and after their
preparation.

Each row is added to the JSON file at once; rows that it already has are skipped. ``--page`` writes files of
rows into docs/rtx-networks.md. Exit status 1 when a network is accepted and a form of ours is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accuracy import replace_between
from architectures.example import OWN
from architectures.exports import Way, export, spread
from architectures.packages import missing_packages, of_packages

from calibrators import Calibration, TensorRange
from trtbuild.backends.tensorrt.apart import build_plan_apart
from trtbuild.backends.tensorrt.builder import Blueprint
from trtbuild.backends.tensorrt.profiles import profiles_for
from trtbuild.backends.tensorrt.refusals import find_refusals
from trtbuild.errors import TrtbuildError
from trtbuild.jobs.loading import load, prepare
from trtbuild.model import input_specs, temporary_file
from trtbuild.options.tensorrt import TensorRTOptions
from trtbuild.passes import OptimizeOptions
from trtbuild.plan import PlacementRequest
from trtbuild.quantization import insert_qdq, watched_tensors
from trtbuild.quantization.half import to_half
from trtbuild.runtime.tensorrt.versions import RTX, installed
from trtbuild.target import FOR_RTX, TENSORRT_11

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import onnx_ir as ir
    from architectures.example import Example

    from trtbuild.artifact import Artifact
    from trtbuild.model.signature import TensorSpec

PAGE = Path(__file__).parent.parent / "docs" / "rtx-networks.md"
START = "<!-- made by benchmarks/architecture_zoo.py -->\n"
BUILT = ("float", "INT8", "INT8 + FP16")


@dataclass
class Row:
    """One export of a network, with the results of its forms in the order of their making.

    Attributes:
        refused: form -> why NVIDIA refuses it; empty where it is accepted.
        seconds: form -> duration of its build.
        plan_mb: form -> size of its plan, 10^6 bytes.
        fault: a failure of trtbuild itself.
        unexported: why PyTorch cannot write this file.
    """

    network: str
    exporter: str
    opset: int
    batch: str
    nodes: int = 0
    groups: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    plan_mb: dict[str, float] = field(default_factory=dict)
    fault: str = ""
    unexported: str = ""

    @property
    def lost(self) -> bool:
        """Whether NVIDIA accepts the network but not all of its forms, or trtbuild failed."""
        taken = self.refused.get("float") == ""
        return bool(self.fault) or (taken and any(self.refused.values()))

    @property
    def way(self) -> str:
        """Exporter, opset and batch."""
        return str(Way(self.exporter, self.opset, self.batch))

    def problem(self) -> str:
        """The first problem, in words; empty where there is none."""
        said = [f"{form}: {why}" for form, why in self.refused.items() if why]
        return self.fault or self.unexported or "; ".join(said[:1])


def forms(path: Path, row: Row, *, compared: bool) -> Iterator[tuple[str, ir.Model]]:
    """Yield name and network of each form that trtbuild makes."""
    artifact = prepare(load(path), OptimizeOptions(check=compared))
    if undone := artifact.history[-1].details["rolled_back"]:
        row.fault = f"passes undone: {undone}"
    yield "prepared", artifact.whole(artifact.model)
    for_rtx = _quantized(replace(artifact, request=PlacementRequest(target=FOR_RTX)))
    row.groups = sum(group.int8 for group in for_rtx.groups)
    if for_rtx.quantized is None:
        return
    yield "INT8", artifact.whole(for_rtx.quantized)
    half, _ = to_half(for_rtx.quantized, dict.fromkeys(_watched(for_rtx), 4.0))
    yield "INT8 + FP16", artifact.whole(half)
    for_11 = _quantized(replace(artifact, request=PlacementRequest(target=TENSORRT_11)))
    if for_11.quantized is not None and for_11.groups != for_rtx.groups:
        yield "INT8 for TensorRT 11", artifact.whole(for_11.quantized)


def _watched(artifact: Artifact) -> tuple[str, ...]:
    return watched_tensors(artifact.model, artifact.request)


def _quantized(artifact: Artifact) -> Artifact:
    """Insert Q/DQ with a range of -4 to 4 everywhere; return the artifact unchanged where no Q/DQ fit."""
    wanted = _watched(artifact)
    if not wanted:
        return artifact
    ranges = {name: TensorRange(3.0, 4.0, -4.0, 4.0, "minmax", "", 1000, 0) for name in wanted}
    return insert_qdq(artifact.with_calibration(Calibration("minmax", ranges)))


def look_at(name: str, make: Callable[[], Example], way: Way, *, build: bool) -> Row:
    """Export a network, make its forms, and run the parser on each; with `build`, the builder, too."""
    row = Row(name, way.exporter, way.opset, way.batch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        try:
            torch.manual_seed(0)
            export(make(), way, path)
        except Exception as error:  # noqa: BLE001  packages raise anything, which is no fault of trtbuild
            row.unexported = _why(error)
            return row
        try:
            row.nodes = len(load(path).source.graph)
            _ask(row, "float", path, build=build)
            for form, model in forms(path, row, compared=name in OWN):
                with temporary_file(model) as file:
                    _ask(row, form, file, build=build)
        except Exception as error:  # noqa: BLE001  an error that is no TrtbuildError is a fault, too
            row.fault = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return row


def _why(error: BaseException) -> str:
    """The root error of an exporter, shortened."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).partition("[Caused by")[0].split())
    return f"{type(error).__name__}: {said[:120]}"


def _ask(row: Row, form: str, path: Path, *, build: bool) -> None:
    refused = find_refusals(installed(RTX), path).refused
    row.refused[form] = f"{refused[0].operator}, {refused[0].reason[:200]}" if refused else ""
    if not build or refused or form not in BUILT:
        return
    started = time.monotonic()
    try:
        row.plan_mb[form] = _build(path)
        row.seconds[form] = time.monotonic() - started
    except TrtbuildError as error:
        row.refused[form] = f"not built, {' '.join(str(error).split())[:300]}"


def _build(path: Path) -> float:
    """Build a plan of a file and return its MB; the profile of dynamic dims has min 1, opt 2 and max 4."""
    artifact = load(path)
    specs = input_specs(artifact.source)
    shapes = [
        f"{spec.name}={':'.join(_shape(spec, size) for size in (1, 2, 4))}"
        for spec in specs
        if not all(isinstance(dim, int) for dim in spec.dims)
    ]
    with temporary_file(artifact.whole(artifact.source)) as file:
        options = TensorRTOptions(compute_capabilities=("8.9", "12.0"))
        blueprint = Blueprint(file, options, profiles=profiles_for(shapes, specs))
        built = build_plan_apart(installed(RTX), blueprint)
        return built.file.stat().st_size / 1e6


def _shape(spec: TensorSpec, size: int) -> str:
    return "x".join(str(dim if isinstance(dim, int) else size) for dim in spec.dims)


def measure(
    networks: Mapping[str, Callable[[], Example]],
    wanted: Callable[[str], bool],
    builds: str,
    done: list[Row],
) -> Iterator[Row]:
    """Yield one row per export of the wanted networks, except those in `done`.

    If one export of each network is built, its kind changes from network to network.
    """
    known = {(row.network, row.way) for row in done}
    for number, (name, make) in enumerate(networks.items()):
        if not wanted(name):
            continue
        ways = spread(number, both_batches=name in OWN)
        first = number % len(ways)
        has_plan = any(row.plan_mb for row in done if row.network == name)
        for way in (*ways[first:], *ways[:first]):
            if (name, str(way)) in known:
                continue
            build = builds == "all" or (builds == "one" and not has_plan)
            row = look_at(name, make, way, build=build)
            has_plan = has_plan or bool(row.plan_mb)
            yield row


def table(rows: Iterable[Row]) -> list[str]:
    """Return a Markdown table: one line per network, with the figures of the export that was built."""
    head = ("network", "exports", "opsets", "built", "nodes", "INT8 groups", "s", *BUILT)
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.network, []).append(row)
    for name, exports in by_name.items():
        taken = [row for row in exports if row.nodes and not any(row.refused.values())]
        built = next((row for row in exports if row.plan_mb), None)
        shown = built or max(exports, key=lambda row: row.nodes)
        opsets = sorted({row.opset for row in taken})
        figures = [shown.seconds.get("INT8"), *(shown.plan_mb.get(form) for form in BUILT)]
        cells = (
            *(name, f"{len(taken)} of {len(exports)}", ", ".join(map(str, opsets)) or "-"),
            *(built.way if built else "-", str(shown.nodes), str(shown.groups)),
            *("-" if figure is None else f"{figure:.1f}" for figure in figures),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def counted(rows: list[Row]) -> list[str]:
    """Return sentences with the numbers of exports, and of accepted and built forms, and the refusals."""
    asked = Counter(form for row in rows for form in row.refused)
    taken = Counter(form for row in rows for form, why in row.refused.items() if not why)
    plans = Counter(form for row in rows for form in row.plan_mb)
    num_networks, num_lost = len({row.network for row in rows}), sum(row.lost for row in rows)
    said = (
        f"{sum(bool(row.nodes) for row in rows)} of {len(rows)} exports of {num_networks} networks came out. "
        f"Parsed were {', '.join(f'{taken[form]} of {asked[form]} {form}' for form in asked)}; "
        f"built were {', '.join(f'{plans[form]} {form}' for form in plans) or 'none'}. Lost: {num_lost}.\n"
    )
    problems: dict[str, list[str]] = {}
    for row in rows:
        if problem := row.problem():
            problems.setdefault(problem, []).append(f"{row.network} ({row.way})")
    return [said, *(f"- {', '.join(where)}: {problem}" for problem, where in problems.items())]


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of JSON files, networks of our own first."""
    found = [Row(**one) for path in paths for one in json.loads(path.read_text())]
    return sorted(found, key=lambda row: ("/" in row.network, row.network))


def main() -> int:
    """Read the arguments, measure every network, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all networks without any")
    parser.add_argument("--builds", choices=("one", "all", "none"), default="one")
    parser.add_argument("--own", action="store_true", help="our own definitions alone")
    parser.add_argument(
        "--json", type=Path, help="rows are kept here; those in it are not made again"
    )
    parser.add_argument(
        "--page", type=Path, nargs="+", help="write these rows into docs/rtx-networks.md"
    )
    given = parser.parse_args()
    if given.page:
        rows = read_rows(given.page)
        replace_between(PAGE, "\n".join(["", *table(rows), "", *counted(rows), ""]), START)
        print("\n".join(counted(rows)))
        return 0
    rows = read_rows([given.json]) if given.json and given.json.exists() else []
    networks = OWN if given.own else {**OWN, **of_packages()}
    if not given.own and missing_packages():
        print(f"Not installed, so without their networks: {', '.join(missing_packages())}.")

    def wanted(name: str) -> bool:
        return not given.names or any(part in name for part in given.names)

    started = time.monotonic()
    for row in measure(networks, wanted, given.builds, rows):
        rows.append(row)
        sign = "LOST" if row.lost else "taken" if not row.problem() else "-"
        print(
            f"{row.network} {row.way}: {sign} {row.problem()} {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if given.json:
            given.json.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n")
    print("\n".join([*table(rows), "", *counted(rows)]))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
