"""How a failed command reports it: a sentence for people, and with ``--json`` a record for programs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import click

from trtbuild.visible import visible_lines

__all__ = ["BUG", "SCHEMA", "VERSION", "WRONG_INPUT", "Failure", "complain"]

SCHEMA = "trtbuild.error"
VERSION = 1

WRONG_INPUT, BUG = 2, 4
"""Exit codes."""


@dataclass(frozen=True)
class Failure:
    """Why a command failed.

    Attributes:
        error: the kind: a class of `trtbuild.errors`, or ``UsageError``.
        message: for the user: what was wrong, where, what to do.
        exit_code: exit code of the command.
    """

    error: str
    message: str
    exit_code: int

    def tell(self, *, as_json: bool) -> int:
        """Write it, and return the exit code."""
        complain(f"trtbuild: {visible_lines(self.message)}")
        return self.record(as_json=as_json)

    def record(self, *, as_json: bool) -> int:
        """Write only the record, if it is wanted, and return the exit code."""
        if as_json:
            from trtbuild.json_codec import dumps

            with contextlib.suppress(
                OSError
            ):  # the failure itself may be that nothing can be written
                click.echo(dumps(self.to_json()))
        return self.exit_code

    def to_json(self) -> dict[str, Any]:
        """Return the record; its schema is in ``docs/schemas``."""
        from trtbuild.json_codec import encode

        return {"schema": SCHEMA, "version": VERSION, **encode(self)}


def complain(text: str) -> None:
    """Write a line to standard error; if that fails, as on a full disk, the work goes on."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
