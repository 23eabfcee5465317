"""The worker of `trtbuild.runtime.isolated`: run as a module, it runs the networks that it is sent.

Requests come on standard input, answers go to the original standard output, both pickled. The process ends
when its parent does, since standard input then closes, or when a request exceeds its CPU time.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbuild.errors import ModelError
from trtbuild.model.mapped_pages import pages_given_back
from trtbuild.runtime.isolated import MappedWeight
from trtbuild.runtime.onnxruntime import Execution, OnnxRuntimeSession, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping

# Share of the free memory that the process may use.
_MEMORY_SHARE = 0.8


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that libraries print must not mix with the answers
    import onnxruntime  # noqa: F401 - in advance, while nobody waits

    served: _Served | None = None
    while True:
        try:
            seconds, request = pickle.load(sys.stdin.buffer)  # noqa: S301 - our parent wrote it
        except EOFError:
            return
        if served is None:
            _limit_memory()
            served = _Served()
        if seconds is not None:
            _limit_processor(seconds)
        pickle.dump(served.answer(*request), answers, protocol=5)
        answers.flush()


class _Served:
    """The network that is open."""

    def __init__(self) -> None:
        self._session: OnnxRuntimeSession | None = None
        self._held: dict[int, np.ndarray] = {}
        self._weights: dict[str, np.ndarray] = {}

    def answer(self, what: str, *arguments: Any) -> tuple[Any, ...]:
        """Return ``ok`` with the results of the request, or ``error`` with the reason."""
        try:
            return ("ok", *(self._open(*arguments) if what == "open" else self._run(*arguments)))
        except ModelError as error:
            return ("error", getattr(error, "reason", "") or str(error).rstrip("."))
        except MemoryError:
            return ("error", "it needs more memory than there is")

    def _open(
        self,
        content: bytes,
        keys: Mapping[str, int],
        new: Mapping[int, MappedWeight | np.ndarray],
    ) -> tuple[Any, ...]:
        """Open a network whose weights are `new` or were sent for the network before."""
        self._session = None
        held = self._held | {key: _loaded(item) for key, item in new.items()}
        self._held = {key: held[key] for key in keys.values()}
        self._weights = {name: held[key] for name, key in keys.items()}
        self._session = open_session(content, Execution.REFERENCE, threads=1, arena=False)
        return self._session.inputs, self._session.outputs, self._session.overridable

    def _run(self, feeds: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
        assert self._session is not None, "the other side opens first"
        given = {spec.name for spec in self._session.inputs} | set(self._session.overridable)
        wanted = {name: item for name, item in feeds.items() if name in given}
        with pages_given_back(self._mapped()):
            return (self._session.run({**self._weights, **wanted}),)

    def _mapped(self) -> list[np.memmap[Any, Any]]:
        return [item for item in self._held.values() if isinstance(item, np.memmap)]


def _loaded(weight: MappedWeight | np.ndarray) -> np.ndarray:
    if not isinstance(weight, MappedWeight):
        return weight
    if 0 in weight.dims:
        return np.zeros(weight.dims, weight.dtype)
    return np.memmap(weight.path, weight.dtype, "r", weight.offset, weight.dims)


def _limit_memory() -> None:
    """Make allocations fail before the machine runs out of memory; no limit if that is not known."""
    with contextlib.suppress(ImportError, OSError, ValueError, KeyError):
        import resource

        lines = [line.split(":") for line in open("/proc/meminfo", encoding="ascii")]  # noqa: SIM115, PTH123
        free = int(dict(lines)["MemAvailable"].split()[0]) * 1024
        used = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: SIM115, PTH123
        limit = used * resource.getpagesize() + int(_MEMORY_SHARE * free)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_processor(seconds: float) -> None:
    """Let the system end this process (SIGXCPU) after this much more CPU time."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(usage.ru_utime + usage.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
