"""Compare the speed of two versions: the same commands as whole processes, in turns.

    python benchmarks/regression.py BASE CANDIDATE
    git worktree add ../former COMMIT && python benchmarks/regression.py ../former .

BASE and CANDIDATE are checkouts, or interpreters of environments where trtbuild is installed
(``venv/bin/python``). Every round runs each command with the base, the candidate and the base again, in an
order that changes from round to round. Wall time and CPU seconds are judged as `trtbuild bench` judges
engines (`trtbuild.latency`): by the ratio of paired turns with an interval of 99.5 %, widened by the
difference between the two runs of the base. Fewer than nine rounds decide nothing. The inputs are made here,
from seeds, or come from the quickstart.

Prints one line per command, writes benchmarks/results/regression.json, exits with 1 if a command is slower.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from resnet50 import write_resnet50

from trtbuild.latency.measure import Samples
from trtbuild.latency.regress import Answer, LatencyVerdict, taken_together
from trtbuild.machine import processor_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RESULTS = Path(__file__).resolve().parent / "results" / "regression.json"
QUICKSTART = Path(__file__).resolve().parent.parent / "samples" / "quickstart"
MARGIN_PERCENT = 5.0
FEWEST_ROUNDS = 9
BASE, CANDIDATE, CONTROL = "base", "candidate", "base again"

# Runs the command in its arguments; prints wall and CPU seconds, the peak memory of the largest process, and
# the exit code. It is a separate process because Linux counts the memory of the process that starts another
# as part of the other's peak.
_CLOCK = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall = time.perf_counter() - start
code = os.waitstatus_to_exitcode(status)
print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, code]))
"""

# Name -> arguments of ``trtbuild``, run in the folder of the inputs; {out} is a new folder.
COMMANDS = {
    "help": ["engine", "--help"],
    "optimize ResNet-50": ["optimize", "resnet50.onnx", "{out}/o.onnx"],
    "optimize 5,000 nodes": ["optimize", "chain.onnx", "{out}/o.onnx"],
    "calibrate ResNet-50, 16 images": [
        "calibrate", "resnet50.onnx", "--data", "images.npy", "-o", "{out}/c.json",
    ],
    "calibrate a small network, 512 images": [
        "calibrate", "small.onnx", "--data", "small.npy", "-o", "{out}/c.json",
    ],
    "calibrate on 64 JPEG files": [
        "calibrate", "small.onnx", "--data", "jpeg", "--resize", "32", "--crop", "32",
        "-o", "{out}/c.json",
    ],
    "engine of a small network": ["engine", "small.onnx", "--int8", "--data", "small.npy", "-o", "{out}"],
    "engine of the quickstart": [
        "engine", f"{QUICKSTART}/digits.onnx", "--int8", "--data", f"{QUICKSTART}/calibration.npz",
        "--preprocess", f"{QUICKSTART}/digits.toml", "--verify-data", f"{QUICKSTART}/test.npz",
        "--labels", f"{QUICKSTART}/test.npz", "--max-top1-drop", "1", "-o", "{out}",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of a process with its children, and the peak MiB of the largest one."""

    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Judged:
    """One command in both versions."""

    command: str
    wall: LatencyVerdict
    cpu: LatencyVerdict
    peak_mib: Mapping[str, float]


def order_of(round_number: int) -> tuple[str, ...]:
    """Return the order of the three runs: each is first in every third round, and last as often."""
    names = (BASE, CANDIDATE, CONTROL)
    start = round_number % len(names)
    turned = names[start:] + names[:start]
    return turned if round_number % 2 == 0 else turned[::-1]


def judge(command: str, costs: Mapping[str, Sequence[Cost]]) -> Judged:
    """Return the verdicts on `command` from the costs of all turns of `BASE`, `CANDIDATE` and `CONTROL`."""

    def verdict(clock: str, seconds: Callable[[Cost], float]) -> LatencyVerdict:
        base, candidate, control = (
            Samples(name, 1, clock, 1, tuple(1000.0 * max(seconds(c), 1e-3) for c in costs[name]))
            for name in (BASE, CANDIDATE, CONTROL)
        )
        return taken_together(base, candidate, control, MARGIN_PERCENT)

    return Judged(
        command,
        verdict("wall clock of whole processes", lambda cost: cost.wall_s),
        verdict("CPU seconds of whole processes", lambda cost: cost.cpu_s),
        {name: float(np.median([cost.peak_mib for cost in costs[name]])) for name in costs},
    )


def line(judged: Judged) -> str:
    """Return one row of the table that is printed."""
    cells = (_cell(verdict) for verdict in (judged.wall, judged.cpu))
    memory = judged.peak_mib[CANDIDATE] / judged.peak_mib[BASE]
    return f"{judged.command:38} {' '.join(f'{cell:38}' for cell in cells)} {memory:.2f}"


def _cell(verdict: LatencyVerdict) -> str:
    ratio = verdict.ratio
    return f"{verdict.answer}: {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def is_slower(judged: Judged) -> bool:
    """Return whether the candidate is slower by wall time or by CPU seconds."""
    return Answer.SLOWER in (judged.wall.answer, judged.cpu.answer)


def version_of(place: str) -> tuple[list[str], dict[str, str]]:
    """Return the command line of a checkout or an interpreter, and its environment.

    A folder that is no checkout is refused: Python would import an installed trtbuild instead.
    """
    path = Path(place)
    if (path / "trtbuild" / "__init__.py").is_file():
        return [sys.executable, "-m", "trtbuild"], {**os.environ, "PYTHONPATH": str(path.resolve())}
    if not path.is_file() or not os.access(path, os.X_OK):
        sys.exit(f"'{place}' is neither a checkout nor an interpreter.")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return [str(path.absolute()), "-m", "trtbuild"], clean


def cost_of(place: str, arguments: Sequence[str], folder: Path) -> Cost:
    """Run a command of a version in `folder`; exits if it fails."""
    command, environment = version_of(place)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        filled = [argument.format(out=out) for argument in arguments]
        done = subprocess.run(
            [sys.executable, "-I", "-c", _CLOCK, *command, *filled],
            cwd=folder, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    wall, cpu, largest, code = json.loads(done.stdout)
    if code not in (0, 1):
        sys.exit(f"{place}: trtbuild {' '.join(arguments)} failed:\n{done.stderr}")
    return Cost(wall, cpu, largest / (2**20 if sys.platform == "darwin" else 2**10))


def make_inputs(folder: Path) -> None:
    """Write the networks and data that `COMMANDS` name."""
    from PIL import Image

    random = np.random.default_rng(0)
    write_resnet50(folder / "resnet50.onnx")
    np.save(folder / "images.npy", random.standard_normal((16, 3, 224, 224), np.float32))
    ir.save(chain(5000), folder / "chain.onnx")
    ir.save(small(), folder / "small.onnx")
    np.save(folder / "small.npy", random.standard_normal((512, 3, 32, 32), np.float32))
    (folder / "jpeg").mkdir()
    for number in range(64):
        pixels = random.integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / "jpeg" / f"{number:03}.jpg", quality=90)


def chain(nodes: int) -> ir.Model:
    """Return a chain of ``nodes / 2`` additions, each after a Relu or an Identity; passes can shorten it."""
    x = ir.val("x", ir.DataType.FLOAT, ["batch", 16])
    tape, value = ir.tape.Tape(), x
    for number in range(nodes // 2):
        constant = tape.initializer(ir.tensor(np.full(16, number, np.float32)), f"c{number}")
        value = tape.op("Add", [value, constant])
        value = tape.op("Identity" if number % 2 else "Relu", [value])
    return _model(x, value, ["batch", 16], tape, "chain")


def small() -> ir.Model:
    """Return eight convolutions over images of 32 pixels."""
    random, tape = np.random.default_rng(1), ir.tape.Tape()
    x = ir.val("image", ir.DataType.FLOAT, ["batch", 3, 32, 32])
    value, channels = x, 3
    for number in range(8):
        weight = random.standard_normal((32, channels, 3, 3), np.float32) / (3 * channels**0.5)
        given = tape.initializer(ir.tensor(weight), f"w{number}")
        padding = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
        value = tape.op("Conv", [value, given], padding)
        value, channels = tape.op("Relu", [value]), 32
    value = tape.op("GlobalAveragePool", [value])
    value = tape.op("Flatten", [value])
    return _model(x, value, ["batch", 32], tape, "small")


def _model(
    x: ir.Value, y: ir.Value, shape: list[str | int], tape: ir.tape.Tape, name: str
) -> ir.Model:
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    for number, node in enumerate(tape.nodes):
        node.name, node.outputs[0].name = f"n{number}", f"t{number}"
    graph = ir.Graph(
        [x],
        [y],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 17},
        name=name,
    )
    return ir.Model(graph, ir_version=8)


def measure(
    places: Mapping[str, str], commands: Mapping[str, Sequence[str]], rounds: int, folder: Path
) -> Iterator[Judged]:
    """Run every command in turns, after one uncounted run with each version, and judge it."""
    for name, arguments in commands.items():
        for place in dict.fromkeys(places.values()):
            cost_of(place, arguments, folder)
        costs: dict[str, list[Cost]] = {one: [] for one in places}
        for number in range(rounds):
            for one in order_of(number):
                costs[one].append(cost_of(places[one], arguments, folder))
        yield judge(name, costs)


def as_json(judged: Judged) -> dict[str, Any]:
    """Return the JSON record of a command."""
    return {
        "command": judged.command,
        "peak_mib": {name: round(value, 1) for name, value in judged.peak_mib.items()},
        **{
            clock: {
                "answer": str(verdict.answer),
                "ratio": round(verdict.ratio.value, 4),
                "low": round(verdict.ratio.low, 4),
                "high": round(verdict.ratio.high, 4),
                "noise_percent": round(verdict.noise_percent, 2),
            }
            for clock, verdict in (("wall", judged.wall), ("cpu", judged.cpu))
        },
    }


def main() -> None:
    """Compare two versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the former version: a checkout, or an interpreter")
    parser.add_argument("candidate", help="the version that is judged")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, metavar="COMMAND")
    given = parser.parse_args()
    if given.rounds < FEWEST_ROUNDS:
        parser.error(f"fewer than {FEWEST_ROUNDS} rounds can tell nothing.")
    places = {BASE: given.base, CANDIDATE: given.candidate, CONTROL: given.base}
    for place in places.values():
        version_of(place)  # fails at once where a version is wrong
    commands = {name: COMMANDS[name] for name in given.only or COMMANDS}
    found = []
    print(f"{'candidate / base':38} {'wall':38} {'CPU':38} memory")
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for judged in measure(places, commands, given.rounds, Path(folder)):
            print(line(judged), flush=True)
            found.append(judged)
    record = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "machine": {"processor": processor_name(), "load_average": os.getloadavg()[0]},
        "rounds": given.rounds,
        "commands": [as_json(judged) for judged in found],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    if any(map(is_slower, found)):
        sys.exit(1)


if __name__ == "__main__":
    main()
