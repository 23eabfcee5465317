"""Times of each node of a network, from ONNX Runtime's profiler."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from trtbuild.errors import ExecutionError, decoding
from trtbuild.runtime.onnxruntime import open_session
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from trtbuild.runtime.session import Feeds

__all__ = ["ProfiledNetwork"]

_KERNEL = "_kernel_time"
_RUN = "model_run"


class ProfiledNetwork:
    """A network opened with ONNX Runtime's profiler, as it is deployed (`Execution.FAST`).

    Args:
        model: a network in memory, or the path of an ONNX file.
        threads: threads inside an operator; None takes one per core.

    Raises:
        ModelError: ONNX Runtime cannot load the network.
    """

    def __init__(self, model: ir.Model | Path, threads: int | None = None) -> None:
        with contextlib.ExitStack() as stack:
            profile = stack.enter_context(temporary_folder()) / "profile"
            self._session = open_session(model, threads=threads, profile=profile)
            stack.callback(self._session.close)
            self._closing = stack.pop_all()

    def run_profiled(self, feeds: Feeds, runs: int) -> None:
        """Run `runs` times.

        Raises:
            ExecutionError: the network cannot be run.
        """
        for _ in range(runs):
            self._session.run(feeds)

    def layer_runs_ms(self) -> list[dict[str, float]]:
        """Return node -> milliseconds for each of the runs; no run can follow.

        Nodes have the names of the optimized network. The profiler's clock counts microseconds. Times of
        nodes in Loop and Scan are summed over their iterations.

        Raises:
            ExecutionError: the profile cannot be read.
        """
        path = self._session.end_profiling()
        with decoding(ExecutionError, "ONNX Runtime's profile cannot be read"):
            events = json.loads(path.read_bytes())
            return list(_runs(events))

    def close(self) -> None:
        """Close the session, and remove its profile. Safe to call twice."""
        self._closing.close()


def _runs(events: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """Group the events by run; an event marks the end of each run."""
    found: dict[str, float] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            node = name.removesuffix(_KERNEL)
            found[node] = found.get(node, 0.0) + float(event["dur"]) / 1000.0
        elif event.get("cat") == "Session" and name == _RUN:
            yield found
            found = {}
