"""The same scenarios with NVIDIA's real library: TensorRT for RTX, whose parser and builder need no GPU."""

from __future__ import annotations

import contextlib
import os
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.tensorrt_stub.fixtures import Answer
from trtbuild.runtime.tensorrt.versions import RTX, Product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class RealWorld:
    """The settings of the stand-in, which have no effect on the real library."""

    product: Product = RTX
    unsupported: set[str] = field(default_factory=set)
    shape_inputs: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class RealBuilder:
    """Runs scenarios here and now, each in a folder of its own."""

    folder: Path

    def run(self, scenario: Callable[..., Any], **arguments: Any) -> Answer:
        """Run ``scenario(world, **arguments)`` and return its answer, without the calls."""
        try:
            with _working_in(self.folder):
                return Answer(scenario(RealWorld(), **arguments), None, [], "")
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  every way to end is an answer
            code = getattr(error, "exit_code", None)
            told = {"type": type(error).__name__, "message": str(error), "exit_code": code}
            return Answer(None, {**told, "trace": traceback.format_exc()}, [], "")

    def value(self, scenario: Callable[..., Any], **arguments: Any) -> Any:
        """Run a scenario that must succeed, and return its result."""
        answer = self.run(scenario, **arguments)
        if answer.error:
            pytest.fail(answer.error["trace"])
        return answer.value


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
