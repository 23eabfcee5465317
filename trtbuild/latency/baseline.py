"""Latencies kept in a file, to be compared with on the same device later."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.errors import InputError
from trtbuild.files import write_text
from trtbuild.latency.conditions import Conditions, Device  # noqa: TC001 - read by `decode`
from trtbuild.latency.measure import Samples  # noqa: TC001 - read by `decode`
from trtbuild.records import decode, dumps, encode, load_object

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Baseline", "check_device", "load_baseline", "save_baseline"]

SCHEMA = "trtbuild.latency-baseline"
VERSION = 1


@dataclass(frozen=True)
class Baseline:
    """One engine's latencies, and what they were measured on.

    Attributes:
        engine: file name of the engine.
        engine_digest: of its bytes.
        device: the machine.
        taken_at: ISO 8601, UTC.
        samples: the latencies.
        conditions: clocks, temperature and other load meanwhile.
        versions: libraries by name.
    """

    engine: str
    engine_digest: str
    device: Device
    taken_at: str
    samples: Samples
    conditions: Conditions
    versions: dict[str, str]

    @staticmethod
    def now() -> str:
        """Return the time of day for `taken_at`."""
        return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")

    def to_json(self) -> dict[str, Any]:
        """Return JSON types, with the schema's name and version."""
        return {"schema": SCHEMA, "version": VERSION, **encode(self)}


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
    data = load_object(path, SCHEMA, VERSION)
    fields = {key: item for key, item in data.items() if key not in ("schema", "version")}
    baseline = decode(Baseline, fields, f"'{path}'")
    _check_samples(baseline.samples, path)
    return baseline


def _check_samples(samples: Samples, path: Path) -> None:
    """Check that medians and logarithms of the latencies can be taken, turn by turn."""
    latencies, size = samples.latencies_ms, samples.runs_per_turn
    if size < 1 or not latencies or not all(0 < value < math.inf for value in latencies):
        raise InputError(
            f"'{path}' is damaged: it needs latencies above 0 ms, in turns of one run or more. Make it again "
            "with --save-baseline."
        )


def check_device(baseline: Baseline, device: Device, path: Path) -> None:
    """Refuse a baseline of another device.

    Raises:
        InputError: it was taken elsewhere.
    """
    if not baseline.device.compares_to(device):
        raise InputError(
            f"'{path}' was measured on {baseline.device}, this is {device}: latencies of two devices"
            " do not compare. Make a baseline here with --save-baseline, or compare two engines"
            " with --against ENGINE."
        )
