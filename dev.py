"""Set up a virtual environment and run the demonstration or the tests; needs Python 3.10 and a network.

    python3 dev.py demo     `trtbuild demo`, with a plan by NVIDIA's compiler where it has wheels of TensorRT
                            for RTX
    python3 dev.py test     lint, format check, types, the documentation site and tests; what CI runs
    python3 dev.py coverage  the tests with coverage measured, which must not fall below a floor
    python3 dev.py lowest   demonstration and tests with the lowest versions that pyproject.toml declares
    python3 dev.py package  sdist and wheel into dist/, checked; the demonstration from the installed wheel

Only the standard library is used here: it is the first thing that runs on a fresh machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
EXTRAS = {
    "demo": "",
    "test": "[dev,torch,ray,rtx]",
    "coverage": "[dev,torch,ray,rtx]",
    "lowest": "[dev]",
}
TOOLS = {"package": ["build>=1.2", "twine>=6", "check-wheel-contents>=0.6"]}  # in place of trtbuild
OPTIONAL = {"demo": "[rtx]"}  # the demonstration also runs without it
TESTED_TORCH = (
    "torch==2.13.0"  # pyproject.toml allows more versions; the newest would bring gigabytes of CUDA
)
DEMO = ["-m", "trtbuild", "demo", "-o", "out"]
# worksteal keeps most tests of a module in one process, so that its fixtures are set up once
TESTS = ["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]
CHECKS = (
    ["-m", "ruff", "check", "."],
    ["-m", "ruff", "format", "--check", "."],
    TESTS,
)
BESIDE = (  # each keeps one core busy, so they run while the tests do
    ["-m", "mypy"],
    ["-m", "mkdocs", "build", "--strict", "-q"],
)
COVERAGE = [
    "--cov=trtbuild",
    "--cov=calibrators",
    "--cov-fail-under=88",
]  # two points below the 90 % of the lines that are covered
COMMANDS = {
    "demo": (DEMO,),
    "test": CHECKS,
    "coverage": ([*TESTS, *COVERAGE],),
    "lowest": (DEMO, TESTS),
}


def environment(task: str) -> Path:
    """Make the virtual environment of `task`, or find it up to date; return its Python."""
    folder = ROOT / ".venv" / task
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed-for"
    project = ROOT / "pyproject.toml"
    wanted = hashlib.sha256(project.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"setting up {folder} (once)", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pins = {
        "test": [TESTED_TORCH],
        "coverage": [TESTED_TORCH],
        "lowest": lowest(project.read_text()),
    }.get(task, [])
    wanted_packages = TOOLS.get(task) or ["-e", f"{ROOT}{EXTRAS[task]}", *pins]
    run([str(python), "-m", "pip", "install", "-q", *wanted_packages])
    if task in OPTIONAL:
        extra = [str(python), "-m", "pip", "install", "-q", "-e", f"{ROOT}{OPTIONAL[task]}"]
        if subprocess.run(extra, cwd=ROOT, check=False).returncode:
            told = "TensorRT for RTX cannot be installed here: there will be no plan by NVIDIA's compiler"
            print(told, file=sys.stderr)
    stamp.write_text(wanted)
    return python


def package(python: Path) -> None:
    """Build both distributions, check them, and run the demonstration from the wheel, installed afresh."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run([str(python), "-m", "build", "-q", "-o", str(dist), str(ROOT)])
    wheel, *_ = dist.glob("*.whl")
    run([str(python), "-m", "twine", "check", "--strict", *map(str, dist.iterdir())])
    run([str(python), "-m", "check_wheel_contents", str(wheel)])
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "venv"
        venv.create(fresh, with_pip=True)
        scripts = fresh / ("Scripts" if os.name == "nt" else "bin")
        run([str(scripts / "python"), "-m", "pip", "install", "-q", str(wheel)])
        run([str(scripts / "trtbuild"), "demo", "-o", str(Path(folder) / "demo")])


def lowest(project: str) -> list[str]:
    """Return the lowest version of each core dependency, as ``name==version``."""
    core = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert core is not None
    found = re.findall(r'"([\w.-]+)>=([\d.]+)(?:,<\d+)?(; .*?)?"', core[1])
    return [f"{name}=={version}{marker}" for name, version, marker in found]


def run(command: list[str]) -> None:
    """Run `command` in the project's folder; end with its exit code when it fails."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


class Beside:
    """A command that runs beside others; `finish` shows its output."""

    def __init__(self, command: list[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this process
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._said, stderr=subprocess.STDOUT
        )

    def finish(self) -> None:
        """Wait for it and show its output; end with its exit code when it fails."""
        code = self._process.wait()
        self._said.seek(0)
        shutil.copyfileobj(self._said, sys.stdout.buffer)
        sys.stdout.flush()
        if code:
            sys.exit(code)

    def end(self) -> None:
        """Kill it if it is still running."""
        self._process.kill()
        self._process.wait()


def run_all(commands: list[list[str]], beside: list[list[str]]) -> None:
    """Run `commands` in turn, with `beside` at the same time; end with the exit code of the first failure."""
    running = [Beside(command) for command in beside]
    try:
        for command in commands:
            print("$ python", *command[1:], file=sys.stderr, flush=True)
            run(command)
        for command, process in zip(beside, running):
            print("$ python", *command[1:], file=sys.stderr, flush=True)
            process.finish()
    finally:
        for process in running:
            process.end()


def main() -> None:
    """Run the task named on the command line."""
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task not in EXTRAS and task not in TOOLS:
        sys.exit(__doc__)
    if sys.version_info < (3, 10):  # noqa: UP036 - an older Python gets a sentence, not a traceback
        sys.exit(f"trtbuild needs Python 3.10 or newer; this is {sys.version.split()[0]}")
    # tests start Python some hundred times; without bytecode, each start compiles all modules again
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    python = environment(task)
    if task == "package":
        package(python)
    commands = [[str(python), *arguments] for arguments in COMMANDS.get(task, ())]
    run_all(commands, [[str(python), *one] for one in BESIDE] if task == "test" else [])


if __name__ == "__main__":
    main()
