"""Run the command line in this process."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.json_documents import valid_output
from trtbuild.cli.main import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    import pytest

__all__ = ["FAST", "HANGS_S", "Outcome", "await_text", "comes_true", "has_ended", "trtbuild"]

# Seconds after which a command counts as hanging; on a busy machine, its start alone takes a minute.
HANGS_S = 600

# Options of ``trtbuild engine`` for tests that do not depend on how ranges are chosen: a quarter of the time.
FAST = ("--effort", "fast")

# lines of a log with the progress of a stage
PROGRESS = re.compile(r"[\w ,:]+: \d+( of \d+)?, \d+\.\d s|still working, \d+\.\d s since [\w ,:]+")


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The error message about a user's mistake: one line, no traceback, exit code 2."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == "" or self.json["schema"] == "trtbuild.error"
        lines = [line for line in self.err.strip().splitlines() if not PROGRESS.fullmatch(line)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("trtbuild: ")
        assert lines[0].endswith("."), "a sentence ends in a full stop"
        return lines[0].removeprefix("trtbuild: ")


def trtbuild(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run ``trtbuild ARGUMENTS``; with ``--json``, check that the output satisfies its schema."""
    capsys.readouterr()
    words = [str(argument) for argument in arguments]
    code = run(words)
    said = capsys.readouterr()
    if "--json" in words and said.out:
        valid_output(words, said.out)
    return Outcome(code, said.out, said.err)


def await_text(file: Path, process: subprocess.Popen[str]) -> str:
    """Wait until a running command has written into `file`; return the text."""
    begun = time.monotonic()
    while not (file.exists() and file.read_text()):
        assert process.poll() is None, process.communicate()
        if time.monotonic() - begun > HANGS_S:
            process.kill()
            raise AssertionError(f"no '{file}' after {HANGS_S} s")
        time.sleep(0.02)
    return file.read_text()


def comes_true(condition: Callable[[], bool]) -> bool:
    """Wait until `condition` holds; return whether it ever did."""
    end = time.monotonic() + HANGS_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def has_ended(pid: int) -> bool:
    """Whether a process, of any parent, runs no more; needs /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
