"""CPU seconds of ``trtbuild --help`` and of every ``trtbuild COMMAND --help``, the minimum of five runs.

python benchmarks/help_time.py
"""

from __future__ import annotations

import os
import subprocess
import sys

from trtbuild.cli.main import _COMMANDS

RUNS = 5


def cpu_seconds(*arguments: str) -> float:
    """Return user and system time of one process."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "trtbuild", *arguments, "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = os.times()
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system


def main() -> None:
    """Print one line per command."""
    for command in ([], *([name] for name in _COMMANDS)):
        least = min(cpu_seconds(*command) for _ in range(RUNS))
        print(f"{' '.join(['trtbuild', *command, '--help']):32} {least:.3f} s")


if __name__ == "__main__":
    main()
