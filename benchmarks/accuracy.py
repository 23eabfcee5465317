"""Accuracy of real networks in INT8, judged by task: trtbuild, ONNX Runtime and, if installed, ModelOpt.

    python benchmarks/accuracy.py FOLDER [NAME...] [--tools TOOL...] [--calibration-seed N] [--others]

For each network, FOLDER holds NAME.onnx, calibration samples in NAME_calib.npz and other samples for the
evaluation in NAME_eval.npz, each file with one array per input. Without names, all networks are measured. An
optional NAME_labels.npy has the classes of the evaluation samples; the lost top-1, in points, is reported
then, too. Each tool runs in a process of its own (`accuracy_tasks.py`), one after another. trtbuild's judge
for the task, found from the network's outputs, compares its result with float, so float is 100 by definition.
TensorRT's form runs in ONNX Runtime without optimizations, which computes Q/DQ as written; the portable
engine runs with all of them, as it is deployed. With a seed, each tool gets half of the calibration data,
drawn by that seed. On a busy machine, --unlimited keeps trtbuild's time limit from ending a search early; it
changes nothing where the limit is not reached.

With --others, FOLDER holds networks that no choice in trtbuild was based on. Results are added to
benchmarks/results/accuracy.json (accuracy-seed-N.json, accuracy-others.json), one task at a time, and the
tables in docs/accuracy-benchmark.md and README.md are made from the files that are there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from accuracy_tasks import PORTABLE, TENSORRT_FORM, TOOLS
from calibration import processor

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE, README = ROOT / "docs" / "accuracy-benchmark.md", ROOT / "README.md"
START, END = "<!-- made by benchmarks/accuracy.py -->\n", "<!-- end -->\n"
ABOVE = """\
Accuracy of real networks in INT8, each on its own task, in percent of the float network
([docs/accuracy-benchmark.md](docs/accuracy-benchmark.md)):
"""
OTHERS = "The default build of networks that nothing was settled on:\n"
DEFAULT, OURS = "trtbuild normal", "trtbuild"
PACKAGES = ("onnxruntime", "nvidia-modelopt")
NOT_INSTALLED = "not installed"

Result = dict[str, Any]


def main() -> None:
    """Measure, and write results and tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), metavar="TOOL")
    parser.add_argument("--calibration-seed", type=int, metavar="N")
    parser.add_argument(
        "--others", action="store_true", help="networks that nothing was settled on"
    )
    parser.add_argument("--unlimited", action="store_true", help="no limit of time for a search")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one task")
    given = parser.parse_args()
    suffix = "-others" if given.others else ""
    if given.calibration_seed is not None:
        suffix += f"-seed-{given.calibration_seed}"
    path = RESULTS / f"accuracy{suffix}.json"
    for name in given.names or names_in(given.folder):
        for tool in given.tools:
            print(f"{name}: {tool}", file=sys.stderr, flush=True)
            extra = {"seed": given.calibration_seed, "unlimited": given.unlimited}
            found = measured(given.folder, name, tool, extra, given.limit)
            keep(path, name, tool, found)
    write_pages()


def names_in(folder: Path) -> list[str]:
    """Names of the networks that have all three files."""
    found = sorted(path.stem for path in folder.glob("*.onnx"))
    names = [name for name in found if all(path.is_file() for path in files(folder, name)[1:])]
    return names or sys.exit(f"no network with calibration and evaluation data in {folder}")


def files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Network, calibration data and evaluation data."""
    return folder / f"{name}.onnx", folder / f"{name}_calib.npz", folder / f"{name}_eval.npz"


def measured(folder: Path, name: str, tool: str, extra: dict[str, Any], limit: float) -> Result:
    """Run one task in its own process; an error is a result, too."""
    if tool.startswith("ModelOpt") and importlib.util.find_spec("modelopt") is None:
        return {"error": NOT_INSTALLED}
    paths = zip(("model", "calibration", "evaluation"), map(str, files(folder, name)))
    task = {"tool": tool, **extra, **dict(paths)}
    labels = folder / f"{name}_labels.npy"
    if labels.is_file():
        task["labels"] = str(labels)
    script = Path(__file__).with_name("accuracy_tasks.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    load = os.getloadavg()[0]
    try:
        done = subprocess.run(
            [sys.executable, str(script), json.dumps(task)],
            capture_output=True, text=True, check=False, env=environment, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {limit:.0f} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"ended with status {done.returncode}"}
    versions = {one: importlib.metadata.version(one) for one in PACKAGES if _installed(one)}
    machine = {"processor": processor(), "cores": len(os.sched_getaffinity(0))}
    load_average = [load, os.getloadavg()[0]]
    return {
        **json.loads(done.stdout), "versions": versions, "machine": machine, "load_average": load_average,
    }  # fmt: skip


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def keep(path: Path, name: str, tool: str, found: Result) -> None:
    """Add one task's result to the file; a tool that is not installed now keeps its earlier figures."""
    stored: dict[str, dict[str, Result]] = json.loads(path.read_text()) if path.exists() else {}
    of_network = stored.setdefault(name, {})
    if found.get("error") != NOT_INSTALLED or tool not in of_network:
        of_network[tool] = found
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(stored, indent=1) + "\n")


def write_pages() -> None:
    """Put the tables into the page, and the short table of the runs without a seed into the README."""
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("accuracy*.json")}
    whole = found.get("accuracy", {})
    drawn = [found[stem] for stem in sorted(found) if stem.startswith("accuracy-seed-")]
    sections = [*short(whole), ""]
    if drawn:
        sections += [*draws(whole, drawn), ""]
    others = found.get("accuracy-others", {})
    if others:
        sections += [OTHERS, *others_rows(others), ""]
    sections += [line for name in whole for line in table(name, whole[name])]
    replace_between(PAGE, "\n".join(sections) + "\n")
    rows = short(whole)
    replace_between(README, "\n".join([*([ABOVE] if rows else []), *rows]) + "\n")


def draws(
    whole: dict[str, dict[str, Result]], drawn: list[dict[str, dict[str, Result]]]
) -> list[str]:
    """The default build with halves of the calibration data: one row per network."""
    lines = [
        f"By half of the calibration data, {len(drawn)} draws: the mean, and the least to the most.\n",
        "| network | TensorRT's form | by all data | portable engine | by all data |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in whole:
        cells = [name]
        for form in (TENSORRT_FORM, PORTABLE):
            values = [
                value for one in drawn if (value := default_value(one, name, form)) is not None
            ]
            all_data = default_value(whole, name, form)
            mean = sum(values) / max(len(values), 1)
            cells += [
                f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})" if values else "",
                "" if all_data is None else f"{all_data:.1f}",
            ]
        if any(cells[1::2]):
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def others_rows(networks: dict[str, dict[str, Result]]) -> list[str]:
    """The default build, both forms: the task's figure, or SQNR alone where the task is not known."""
    lines = [
        "| network | judged | TensorRT's form | its worst part, dB | portable engine | its worst part, dB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, tools in networks.items():
        forms = tools.get(DEFAULT, {}).get("forms", {})
        if not forms:
            continue
        first = forms[TENSORRT_FORM]
        judged = first["figure"]["name"] if first["figure"] else "no task told"
        cells = [name, f"{judged}, {first['samples']} samples"]
        for form in (forms[TENSORRT_FORM], forms[PORTABLE]):
            sqnr = form["sqnr_db"]
            cells += [
                interval(form) if form["figure"] else "",
                "" if sqnr is None else f"{sqnr:.1f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def default_value(found: dict[str, dict[str, Result]], name: str, form: str) -> float | None:
    """The task's figure of one form of the default build; None where it was not run."""
    return value_of(found.get(name, {}).get(DEFAULT, {}).get("forms", {}).get(form))


def replace_between(page: Path, text: str, start: str = START) -> None:
    """Put `text` between the marks of a page."""
    before, _, rest = page.read_text().partition(start)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{start}\n{text}\n{END}{after}")


def short(networks: dict[str, dict[str, Result]]) -> list[str]:
    """One row a network: what is judged, trtbuild's default build, and the best of the other tools."""
    rows = [row for name, tools in networks.items() if (row := short_row(name, tools))]
    if not rows:
        return []
    return [
        "| network | judged, % of float | trtbuild, TensorRT's form | portable engine | best of the others |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]


def short_row(name: str, tools: dict[str, Result]) -> str:
    """A network's row; empty where trtbuild's default build has no figure."""
    forms = tools.get(DEFAULT, {}).get("forms", {})
    if value_of(forms.get(TENSORRT_FORM)) is None:
        return ""
    others = {
        tool: value
        for tool, found in tools.items()
        if not tool.startswith(OURS)
        and (value := value_of(found.get("forms", {}).get(TENSORRT_FORM))) is not None
    }
    best = max(others, key=others.__getitem__, default=None)
    cells = [
        name,
        f"{forms[TENSORRT_FORM]['figure']['name']}, {forms[TENSORRT_FORM]['samples']} samples",
        *(f"{value_of(forms[form]):.1f}" for form in (TENSORRT_FORM, PORTABLE)),
        f"{others[best]:.1f} ({best})" if best is not None else "",
    ]
    return f"| {' | '.join(cells)} |"


def value_of(form: Result | None) -> float | None:
    """The task's figure of a form; None where there is none."""
    figure = None if form is None else form["figure"]
    return None if figure is None else float(figure["value"])


def table(name: str, tools: dict[str, Result]) -> list[str]:
    """All results of one network, as Markdown."""
    judged = [form for found in tools.values() for form in found.get("forms", {}).values()]
    figure = next((form["figure"]["name"] for form in judged if form["figure"]), "the task")
    lines = [
        f"### {name}\n",
        f"| tool | form | {figure}, % | SQNR of the worst part, dB | seconds (of CPU) | peak memory, MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for tool in (tool for tool in TOOLS if tool in tools):
        found = tools[tool]
        if "error" in found:
            said = found["error"].replace("|", "/")[:160]
            lines.append(
                f"| {tool} | | {said if said == NOT_INSTALLED else f'failed: {said}'} | | | |"
            )
            continue
        costs = [f"{found['seconds']:.0f} ({found['cpu_s']:.0f})", f"{found['peak_mib']:.0f}"]
        for form, figures in found["forms"].items():
            sqnr = figures["sqnr_db"]
            part = "" if sqnr is None else f"{sqnr:.1f} ({figures['part']})"
            lines.append(
                f"| {tool} | {form} | {interval(figures)} | {part} | {' | '.join(costs)} |"
            )
            costs = ["", ""]
    moves = tools.get(DEFAULT, {}).get("moves")
    said = [f"Kept by the default build beyond ranges: {moves}.", ""] if moves else []
    return [*lines, "", *said, conditions(list(tools.values())), ""]


def interval(form: Result) -> str:
    """The task's figure with its interval."""
    figure = form["figure"]
    if figure is None:
        return "nothing found" if form["task"] else "task unknown"
    said = f"{figure['value']:.1f} ({figure['low']:.1f} to {figure['high']:.1f})"
    drop = form.get("drop")
    return said if drop is None else f"{said}; top-1 lost, points: {drop['value']:.2f}"


def conditions(tools: list[Result]) -> str:
    """Versions, and how busy the machine was: it decides how far a search with a limit of time gets."""
    done = [found for found in tools if "error" not in found]
    if not done:
        return ""
    versions = {f"{n} {number}" for found in done for n, number in found["versions"].items()}
    loads = [load for found in done for load in found["load_average"]]
    machines = {f"{one['processor']}, {one['cores']} cores" for one in (f["machine"] for f in done)}
    return (
        f"{'; '.join(sorted(machines))}, load average {min(loads):.1f} to {max(loads):.1f}; "
        f"{', '.join(sorted(versions))}."
    )


if __name__ == "__main__":
    main()
