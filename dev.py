"""Set up a virtual environment and run the demonstration or the tests; needs Python 3.10 and a network.

    python3 dev.py demo     build a verified INT8 engine from the trained network in samples/quickstart
    python3 dev.py test     lint, format check, types and tests; what continuous integration runs

Only the standard library is used here: it is the first thing that runs on a fresh machine.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
EXTRAS = {"demo": "", "test": "[dev,torch,plots,ray]"}
SAMPLE = Path("samples/quickstart")
DEMO = (
    f"-m trtbuild engine {SAMPLE}/digits.onnx --int8 --data {SAMPLE}/calibration.npz "
    f"--preprocess {SAMPLE}/digits.toml --verify-data {SAMPLE}/test.npz --labels {SAMPLE}/test.npz "
    "--max-top1-drop 1 -o out"
).split()
CHECKS = (
    ["-m", "ruff", "check", "."],
    ["-m", "ruff", "format", "--check", "."],
    ["-m", "mypy"],
    ["-m", "pytest", "-q", "-n", "2"],
)


def environment(task: str) -> Path:
    """Make the virtual environment of `task`, or find it up to date; answer its Python."""
    folder = ROOT / ".venv" / task
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed-for"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"setting up {folder} (once)", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    run([str(python), "-m", "pip", "install", "-q", "-e", f"{ROOT}{EXTRAS[task]}"])
    stamp.write_text(wanted)
    return python


def run(command: list[str]) -> None:
    """Run `command` in the project's folder; end with its exit code when it fails."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Do what the command line names."""
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task not in EXTRAS:
        sys.exit(__doc__)
    if sys.version_info < (3, 10):  # noqa: UP036 - an older Python gets a sentence, not a traceback
        sys.exit(f"trtbuild needs Python 3.10 or newer; this is {sys.version.split()[0]}")
    python = environment(task)
    for arguments in [DEMO] if task == "demo" else CHECKS:
        print("$ python", *arguments, file=sys.stderr, flush=True)
        run([str(python), *arguments])


if __name__ == "__main__":
    main()
