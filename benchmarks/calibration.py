"""What calibrating costs, side by side in one run: trtbuild, ONNX Runtime and, if installed, ModelOpt.

    python benchmarks/calibration.py resnet50 --images 16 --batch 8
    python benchmarks/calibration.py resnet20 --images 64 --batch 64 --cifar10 FOLDER

Every figure comes from a process of its own. CPU seconds are divided by those of plain float inference on
one thread over the same images (more threads spend CPU seconds waiting for each other); memory is what the
process takes beyond that of plain inference. Each tool runs twice, the second time on half of the images, so
that growth shows; not with --once. FOLDER holds resnet20.onnx, calib_exact_1024.npz and test_exact_300.npz.

Results go to benchmarks/results/calibration-NETWORK.json, and the table in docs/calibration-benchmark.md
is made from all files that are there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from resnet50 import write_resnet50

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "calibration-benchmark.md"
START, END = "<!-- made by benchmarks/calibration.py -->\n", "<!-- end -->\n"
BASE = "float, 1 thread"
TOOLS = [
    BASE,
    "float, a thread per core",
    "trtbuild entropy",
    "trtbuild auto",
    "ONNX Runtime Entropy",
    "ONNX Runtime MinMax",
    "ONNX Runtime Percentile",
]
MODELOPT = ["ModelOpt entropy", "ModelOpt max"]
# How ResNet20's checkpoint wants its pixels.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measured(task: dict[str, Any]) -> dict[str, Any]:
    """Do one task in a process of its own; what it says is shown when it fails."""
    script = Path(__file__).with_name("calibration_tasks.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(task)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout))


def prepare_files(network: str, cifar10: Path | None, folder: Path, count: int) -> dict[str, Any]:
    """Write images (and test images) as the network takes them; answer the fixed part of a task."""
    if network == "resnet50":
        images = np.random.default_rng(0).standard_normal((count, 3, 224, 224), np.float32)
        np.save(folder / "images.npy", images)
        model = write_resnet50(folder / "resnet50.onnx")
        return {"model": str(model), "images": str(folder / "images.npy")}
    if cifar10 is None:
        sys.exit("resnet20 needs --cifar10 FOLDER")
    for file, name in (("calib_exact_1024", "images"), ("test_exact_300", "test")):
        with np.load(cifar10 / f"{file}.npz") as stored:
            x = (stored["x"].astype(np.float32) / 255 - MEAN) / STD
            x, y = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32), stored["y"]
        if name == "test":
            np.savez(folder / "test.npz", x=x, y=y)
        else:
            np.save(folder / "images.npy", x[:count])
    return {
        "model": str(cifar10 / "resnet20.onnx"),
        "images": str(folder / "images.npy"),
        "test": str(folder / "test.npz"),
    }


def run(
    network: str, count: int, batch: int, cifar10: Path | None, tools: list[str], growth: bool
) -> dict[str, Any]:
    """Measure `tools` on `network`, on half of the images as well if `growth`."""
    figures: dict[str, dict[str, Any]] = {}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        fixed = prepare_files(network, cifar10, Path(name), count)
        for tool in tools:
            print(f"{network}: {tool}", file=sys.stderr, flush=True)
            task = {**fixed, "tool": tool, "batch": batch}
            parts = {"all": {**task, "count": count}}
            if growth:
                parts["half"] = {**task, "count": count // 2, "test": None}
            figures[tool] = {part: measured(given) for part, given in parts.items()}
            load.append(os.getloadavg()[0])
    packages = ("numpy", "onnxruntime", "numba")
    return {
        "network": network,
        "images": count,
        "batch": batch,
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": [min(load), max(load)],
        },
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "tools": figures,
    }


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def tables() -> str:
    """One table for each file of results."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("calibration-*.json"))]
    return "\n".join(table(result) for result in found)


def table(result: dict[str, Any]) -> str:
    """The results of one network, as Markdown."""
    machine, count = result["machine"], result["images"]
    low, high = machine["load_average"]
    base = result["tools"][BASE]
    sizes = {"all": f"{count} images", "half": f"{count // 2} images"}
    titles = [
        *(f"CPU, times float, {sizes[part]}" for part in base),
        *(f"peak memory over float, MiB, {sizes[part]}" for part in base),
        "top-1, %",
    ]
    lines = [
        f"### {result['network']}, {count} images, batch {result['batch']}\n",
        f"| | {' | '.join(titles)} |",
        "| --- " * (len(titles) + 1) + "|",
    ]
    for tool, parts in result["tools"].items():
        cells = [cell(parts[p], base[p], "cpu_s") for p in base]
        cells += [cell(parts[p], base[p], "peak_mib") for p in base]
        top1 = parts["all"].get("top1_percent")
        cells.append("" if top1 is None else f"{top1:.1f}")
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    per_image = 1000 * base["all"]["cpu_s"] / count
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines.append(
        f"\nFloat on one thread: {per_image:.2f} ms of CPU an image. {machine['processor']}, "
        f"{machine['cores']} cores, load average {low:.1f} to {high:.1f}; {versions}.\n"
    )
    return "\n".join(lines)


def cell(figures: dict[str, Any], base: dict[str, Any], key: str) -> str:
    """A figure in relation to plain float inference."""
    if "error" in figures:
        return "failed"
    if key == "cpu_s":
        return f"{figures[key] / base[key]:.2f}"
    return f"{figures[key] - base[key]:.0f}"


def write_page() -> None:
    """Put the tables into the page."""
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{tables()}\n{END}{after}")


def main() -> None:
    """Measure, and write results and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=["resnet20", "resnet50"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--cifar10", type=Path, metavar="FOLDER")
    parser.add_argument("--tools", nargs="+", choices=[*TOOLS, *MODELOPT], metavar="TOOL")
    parser.add_argument("--once", action="store_true", help="not on half of the images as well")
    given = parser.parse_args()
    tools = given.tools or TOOLS + (MODELOPT if importlib.util.find_spec("modelopt") else [])
    tools = [BASE, *(tool for tool in tools if tool != BASE)]
    files = (given.network, given.images, given.batch, given.cifar10)
    result = run(*files, tools, growth=not given.once)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"calibration-{given.network}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    write_page()


if __name__ == "__main__":
    main()
