"""Latency of PyTorch modules on a backend: whole networks, in turns with the module as loaded."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.backends import AUTO, choose_backend
from trtbuild.backends.base import BuildRequest
from trtbuild.errors import MissingError
from trtbuild.files import make_directory
from trtbuild.jobs.loading import load
from trtbuild.latency.measure import measure
from trtbuild.latency.regress import taken_together
from trtbuild.latency.stats import summarize
from trtbuild.options.compare import REFERENCE_BACKEND
from trtbuild.options.measure import MeasureOptions
from trtbuild.temporaries import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from trtbuild.backends.base import Backend
    from trtbuild.pytorch.spec import InputSpec
    from trtbuild.runtime.session import Feeds, Session

__all__ = ["Timed", "latency_share", "opened_float", "sample_feeds", "timed_against"]

LOADED = "the module as loaded"

# For one candidate in a search for a budget.
_BRIEFLY = MeasureOptions(warmup_ms=50.0, duration_ms=500.0, min_rounds=20)


@dataclass(frozen=True)
class Timed:
    """Latency of one network: the median of a run in ms, and its share of another's in the same turns."""

    ms: float
    share: float


def timed_against(
    base: Session, others: Mapping[str, Session], feeds: Feeds, options: MeasureOptions
) -> dict[str, Timed]:
    """Run all sessions in turns; return the base under `LOADED`, and the others by name.

    Args:
        base: the session that shares refer to.
        others: the other sessions, by name.
        feeds: inputs of one run.
        options: how long to measure.
    """
    found = measure({LOADED: base, **others}, feeds, options)
    shares = {name: taken_together(found[LOADED], found[name]).ratio.value for name in others}
    times = {name: summarize(samples).median_ms for name, samples in found.items()}
    return {name: Timed(ms, shares.get(name, 1.0)) for name, ms in times.items()}


def sample_feeds(module: Any, inputs: Sequence[InputSpec]) -> Feeds:
    """Return inputs for one run with the shapes, types and ranges of `inputs`, drawn with a fixed seed."""
    from trtbuild.pytorch.inputs import bind_inputs, sample

    bound = bind_inputs(module, inputs)
    arguments, keywords = sample(bound, seed=0)
    named = {**dict(zip(bound.names, arguments)), **keywords}
    return {name: tensor.numpy() for name, tensor in named.items()}


@contextlib.contextmanager
def opened_float(network: Path, backend: Backend, folder: Path) -> Iterator[Session]:
    """Open a float network as the backend runs it; NVIDIA's backends build an FP16 engine in `folder`.

    Raises:
        MissingError: the backend's engines cannot run on this machine.
    """
    if backend.name == REFERENCE_BACKEND:
        session = backend.open(network)
    else:
        engine = backend.build(BuildRequest(load(network), make_directory(folder), fp16=True))
        if engine.not_opened:
            raise MissingError(
                f"latency cannot be measured with the backend '{backend.name}' here, because "
                f"{engine.not_opened}; choose another with --backend."
            )
        session = backend.open(engine.path)
    try:
        yield session
    finally:
        session.close()


@contextlib.contextmanager
def latency_share(
    module: Any, inputs: Sequence[InputSpec], backend: str | Backend = AUTO
) -> Iterator[Callable[[Any], float]]:
    """Yield a function that times a module against `module` and returns the share: 0.5 is twice as fast.

    Both are exported, folded, and run in turns, whole and in float, at the batch of `inputs`; the fastest
    runs are compared.

    Args:
        module: the module that shares refer to.
        inputs: specifications of the inputs.
        backend: the backend that runs them.

    Raises:
        MissingError: the backend does not work here.
        ModelError: a module cannot be exported.
    """
    from trtbuild.pytorch import export_onnx

    chosen, _ = choose_backend(backend)
    feeds = sample_feeds(module, inputs)
    with temporary_folder() as folder, contextlib.ExitStack() as stack:
        export_onnx(module, inputs, path=folder / "dense.onnx")
        dense = stack.enter_context(opened_float(folder / "dense.onnx", chosen, folder / "dense"))

        def share(candidate: Any) -> float:
            path = folder / "candidate.onnx"
            export_onnx(candidate, inputs, path=path)
            with opened_float(path, chosen, folder / "candidate") as session:
                found = measure({LOADED: dense, "candidate": session}, feeds, _BRIEFLY)
            # other load on the machine only adds time, so the fastest runs describe the networks best
            return min(found["candidate"].latencies_ms) / min(found[LOADED].latencies_ms)

        yield share
