"""The cost of calibration, side by side in one run: trtbuild, ONNX Runtime and, if installed, ModelOpt.

    python benchmarks/calibration.py resnet50 --images 64 --batch 8
    python benchmarks/calibration.py resnet20 --images 4096 --batch 64 --cifar10 FOLDER

Every figure comes from a process of its own. CPU seconds are divided by those of plain float inference on
one thread over the same images (more threads spend CPU seconds waiting for each other), measured right before
and right after: other machines on the same processor slow both down. The tables show the median of several
rounds. Memory is the memory of the process beyond that of plain inference; the number in brackets excludes
memory in use before the work begins (libraries, the network, images). In every round each tool runs twice,
the second time on half of the images, to show growth; --once omits this. FOLDER holds resnet20.onnx,
calib_exact_1024.npz, calib_jpeg_1024.npz and test_exact_300.npz; beyond 2,048, images are mirrored.

Results go to benchmarks/results/calibration-NETWORK.json, and the table in docs/calibration-benchmark.md
is made from all files that are there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
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
    "float, a thread per core",
    "trtbuild entropy",
    "trtbuild auto",
    "ONNX Runtime Entropy",
    "ONNX Runtime MinMax",
    "ONNX Runtime Percentile",
]
MODELOPT = ["ModelOpt entropy", "ModelOpt max"]
# The preprocessing of ResNet20's checkpoint.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measured(task: dict[str, Any]) -> dict[str, Any]:
    """Run one task in its own process; show its output when it fails."""
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
    """Write images (and test images) as network inputs; return the fixed part of a task."""
    if network == "resnet50":
        images = np.random.default_rng(0).standard_normal((count, 3, 224, 224), np.float32)
        np.save(folder / "images.npy", images)
        model = write_resnet50(folder / "resnet50.onnx")
        return {"model": str(model), "images": str(folder / "images.npy")}
    if cifar10 is None:
        sys.exit("resnet20 needs --cifar10 FOLDER")
    x, y = cifar10_arrays(cifar10 / "test_exact_300.npz")
    np.savez(folder / "test.npz", x=x, y=y)
    kinds = ("exact", "jpeg")
    parts = [cifar10_arrays(cifar10 / f"calib_{kind}_1024.npz")[0] for kind in kinds]
    seen = np.concatenate(parts)
    np.save(folder / "images.npy", np.concatenate([seen, seen[..., ::-1]])[:count])
    return {
        "model": str(cifar10 / "resnet20.onnx"),
        "images": str(folder / "images.npy"),
        "test": str(folder / "test.npz"),
    }


def cifar10_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images as inputs of ResNet20, and their labels."""
    with np.load(path) as stored:
        x, y = (stored["x"].astype(np.float32) / 255 - MEAN) / STD, stored["y"]
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32), y


def run(
    network: str,
    count: int,
    batch: int,
    cifar10: Path | None,
    tools: list[str],
    rounds: int,
    growth: bool,
) -> dict[str, Any]:
    """Measure `tools` on `network` in `rounds` rounds, with `growth` on half of the images, too."""
    sizes = {"all": count, "half": count // 2} if growth else {"all": count}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        tool: {part: [] for part in sizes} for tool in [BASE, *tools]
    }
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        fixed = {**prepare_files(network, cifar10, Path(name), count), "batch": batch}
        for number, (part, size) in itertools.product(range(rounds), sizes.items()):
            sized = (
                {**fixed, "count": size}
                if part == "all"
                else {**fixed, "count": size, "test": None}
            )
            before = measured({**sized, "tool": BASE})
            found[BASE][part].append(before)
            for tool in tools:
                print(f"round {number + 1}, {size} images: {tool}", file=sys.stderr, flush=True)
                figures, after = (measured({**sized, "tool": given}) for given in (tool, BASE))
                found[tool][part].append({**figures, **times_float(figures, before, after)})
                found[BASE][part].append(after)
                before = after
                load.append(os.getloadavg()[0])
    packages = ("numpy", "onnxruntime", "llvmlite")
    return {
        "network": network,
        "images": count,
        "batch": batch,
        "rounds": rounds,
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": [min(load), max(load)],
        },
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "tools": found,
    }


def times_float(
    figures: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """CPU seconds relative to plain inference just before and just after."""
    if "error" in figures:
        return {}
    return {"times_float": 2 * figures["cpu_s"] / (before["cpu_s"] + after["cpu_s"])}


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
        if tool == BASE:
            continue
        cells = [cpu_cell(parts[p]) for p in base] + [memory_cell(parts[p], base[p]) for p in base]
        top1 = parts["all"][0].get("top1_percent")
        cells.append("" if top1 is None else f"{top1:.1f}")
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    lines.extend(against_default(result["tools"], sizes))
    per_image = 1000 * median(base["all"], "cpu_s") / count
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines.append(
        f"\nMedians of {result['rounds']} rounds, least and most in brackets. Float on one thread: "
        f"{per_image:.2f} ms of CPU an image. {machine['processor']}, {machine['cores']} cores, load average "
        f"{low:.1f} to {high:.1f}; {versions}.\n"
    )
    return "\n".join(lines)


def against_default(tools: dict[str, Any], sizes: dict[str, str]) -> list[str]:
    """The cost of trtbuild relative to float inference with ONNX Runtime's default threads."""
    default, ours = (
        tools.get(name, {}) for name in ("float, a thread per core", "trtbuild entropy")
    )
    found = []
    for part in (part for part in ours if part in default):
        if any("error" in figures for figures in (*ours[part], *default[part])):
            continue
        pairs = zip(ours[part], default[part])
        ratios = [mine["cpu_s"] / plain["cpu_s"] for mine, plain in pairs]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        found.append(f"{statistics.median(ratios):.2f} ({spread}) with {sizes[part]}")
    if not found:
        return []
    return [f"\ntrtbuild entropy over float with a thread per core: {', '.join(found)}."]


def median(rounds: list[dict[str, Any]], key: str) -> float:
    """The median of one figure."""
    return statistics.median(figures[key] for figures in rounds)


def cpu_cell(rounds: list[dict[str, Any]]) -> str:
    """CPU seconds relative to plain float inference."""
    if any("error" in figures for figures in rounds):
        return "failed"
    found = [figures["times_float"] for figures in rounds]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def memory_cell(rounds: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """Peak memory beyond that of plain float inference; in brackets, memory of the work alone."""
    if any("error" in figures for figures in rounds):
        return "failed"
    whole, work = (median(rounds, key) - median(base, key) for key in ("peak_mib", "work_mib"))
    return f"{whole:.0f} ({work:.0f})"


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", action="store_true", help="not on half of the images as well")
    given = parser.parse_args()
    tools = given.tools or TOOLS + (MODELOPT if importlib.util.find_spec("modelopt") else [])
    files = (given.network, given.images, given.batch, given.cifar10)
    result = run(*files, tools, given.rounds, growth=not given.once)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"calibration-{given.network}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    write_page()


if __name__ == "__main__":
    main()
