"""Latencies kept in a file, for later comparisons on the same device."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbuild.errors import InputError
from trtbuild.files import write_text
from trtbuild.json_codec import Document, dumps
from trtbuild.latency.conditions import Conditions, Device  # noqa: TC001 - read by `decode`
from trtbuild.latency.measure import Samples  # noqa: TC001 - read by `decode`

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from trtbuild.model.signature import TensorSpec

__all__ = [
    "Baseline",
    "TimedInput",
    "check_device",
    "check_inputs",
    "load_baseline",
    "save_baseline",
    "timed_inputs",
]


@dataclass(frozen=True)
class TimedInput:
    """An input of the engine that was timed.

    Attributes:
        name: the input's name.
        dtype: name of its NumPy dtype.
        dims: its dims; None for a dynamic one.
    """

    name: str
    dtype: str
    dims: tuple[int | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.dims)
        return f"'{self.name}' {self.dtype} [{dims}]"

    def fits(self, other: TimedInput) -> bool:
        """Return whether both can be the same input; a dynamic dim matches any."""
        if (self.name, self.dtype) != (other.name, other.dtype):
            return False
        if not self.dims or not other.dims:  # a scalar, or a shape that the file does not give
            return True
        return len(self.dims) == len(other.dims) and all(
            None in pair or pair[0] == pair[1] for pair in zip(self.dims, other.dims)
        )


@dataclass(frozen=True)
class Baseline(Document):
    """One engine's latencies, and what they were measured on.

    Attributes:
        engine: file name of the engine.
        engine_digest: digest of its bytes.
        device: the machine.
        taken_at: when it was measured, ISO 8601, UTC.
        samples: the latencies.
        conditions: clocks, temperature and other load during the measurement.
        versions: versions of libraries, by name.
        inputs: inputs of the engine; None in older files, which do not have them.
    """

    SCHEMA = "trtbuild.latency-baseline"

    engine: str
    engine_digest: str
    device: Device
    taken_at: str
    samples: Samples
    conditions: Conditions
    versions: dict[str, str]
    inputs: tuple[TimedInput, ...] | None = None

    @staticmethod
    def now() -> str:
        """Return the current time for `taken_at`."""
        return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")


def save_baseline(baseline: Baseline, path: Path) -> None:
    """Write a baseline.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, dumps(baseline.to_json()) + "\n")


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        InputError: unreadable, or of another schema or version.
    """
    baseline = Baseline.load(path)
    _check_samples(baseline.samples, path)
    return baseline


def _check_samples(samples: Samples, path: Path) -> None:
    """Check that the latencies are positive and come in turns, so that medians and logarithms exist."""
    latencies, size = samples.latencies_ms, samples.runs_per_turn
    if size < 1 or not latencies or not all(0 < value < math.inf for value in latencies):
        raise InputError(
            f"'{path}' is damaged: it needs latencies above 0 ms, in turns of one run or more. Make it again "
            "with --save-baseline."
        )


def check_device(baseline: Baseline, device: Device, path: Path) -> None:
    """Refuse a baseline of another device.

    Raises:
        InputError: it was measured on another device.
    """
    if not baseline.device.compares_to(device):
        raise InputError(
            f"'{path}' was measured on {baseline.device}, but this is {device}: latencies of two devices "
            "cannot be compared. Make a baseline here with --save-baseline, or compare two engines"
            " with --against ENGINE."
        )


def timed_inputs(specs: Iterable[TensorSpec]) -> tuple[TimedInput, ...]:
    """Return a baseline's record of an engine's inputs."""
    return tuple(
        TimedInput(
            spec.name,
            spec.dtype.name,
            tuple(dim if isinstance(dim, int) else None for dim in spec.dims),
        )
        for spec in specs
    )


def check_inputs(baseline: Baseline, specs: Iterable[TensorSpec], engine: str, path: Path) -> None:
    """Refuse a baseline of another network, as far as the inputs show it.

    Raises:
        InputError: a name, a dtype or a static dim of an input differs.
    """
    if baseline.inputs is None:
        return
    now = {one.name: one for one in timed_inputs(specs)}
    then = {one.name: one for one in baseline.inputs}
    if now.keys() == then.keys() and all(one.fits(now[name]) for name, one in then.items()):
        return
    raise InputError(
        f"'{path}' is a baseline of '{baseline.engine}', which takes {_listed(then.values())}; '{engine}' "
        f"takes {_listed(now.values())}: their latencies cannot be compared. Make a baseline of this one "
        "with "
        "--save-baseline."
    )


def _listed(inputs: Iterable[TimedInput]) -> str:
    return ", ".join(map(str, inputs)) or "nothing"
