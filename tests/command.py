"""The command line, in process."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.cli.main import run

if TYPE_CHECKING:
    import pytest

__all__ = ["Outcome", "trtbuild"]


# lines of a log that say how far a stage is, or that a slow one is still at work
PROGRESS = re.compile(r"[\w ,:]+: \d+( of \d+)?, \d+\.\d s|still working, \d+\.\d s since [\w ,:]+")


@dataclass(frozen=True)
class Outcome:
    """Exit code, and what was said where."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The complaint about a user's mistake: one line, no traceback, exit code 2."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == "" or self.json["schema"] == "trtbuild.error"
        lines = [line for line in self.err.strip().splitlines() if not PROGRESS.fullmatch(line)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("trtbuild: ")
        assert lines[0].endswith("."), "a sentence ends in a full stop"
        return lines[0].removeprefix("trtbuild: ")


def trtbuild(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run ``trtbuild ARGUMENTS``."""
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return Outcome(code, said.out, said.err)
