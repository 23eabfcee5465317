"""The record of a compression: saved completely after every step, so that an interrupted run can continue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.files import write_text
from trtbuild.json_codec import Document, dumps

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "FILE",
    "Compression",
    "CompressionPoint",
    "CompressionStep",
    "begin",
    "write_record",
]

FILE = "compression.json"

_MARGIN = 1e-9  # for rounding of floating-point figures

TITLES = {
    "loaded": "module as loaded",
    "pruned": "pruned module",
    "sparse": "2:4 module",
    "tuned": "trained module",
    "folded": "folded network",
    "weights": "network with weights in INT8",
    "form": "network in TensorRT's form",
    "engine": "engine",
}


@dataclass(frozen=True)
class CompressionPoint:
    """One evaluated network of a run.

    Attributes:
        stage: ``loaded``, ``pruned``, ``sparse``, ``tuned``; for a build ``folded``, ``weights`` (in INT8),
            ``form`` (everything in INT8 as written) and ``engine``.
        round: 0 is the module as loaded; every other round removes something.
        path: its file or folder, in the run's folder; empty if it was not kept.
        figure: result of the user's evaluation; None without one.
        lost: loss of that figure since the module was loaded.
        limit: the largest loss allowed here; None for no limit.
        parameters: number of trained values.
        macs: multiply-accumulates per sample; None if they cannot be counted.
        weight_bytes: size of the parameters, buffers or constants.
        latency_ms: median of one run; None if it was not measured.
        latency_share: latency as a share of the module's as loaded, measured in turns with it.
    """

    stage: str
    round: int
    path: str
    figure: float | None
    lost: float | None
    limit: float | None
    parameters: int
    macs: int | None
    weight_bytes: int
    latency_ms: float | None = None
    latency_share: float | None = None

    @property
    def passed(self) -> bool:
        """Whether no more was lost than allowed."""
        return self.limit is None or self.lost is None or self.lost <= self.limit + _MARGIN

    @property
    def what(self) -> str:
        """Its name, in words."""
        title = TITLES[self.stage]
        return f"{title} of round {self.round}" if self.round else title


@dataclass(frozen=True)
class CompressionStep:
    """A finished step.

    Attributes:
        step: its name.
        seconds: how long it took.
        points: the networks that it evaluated.
        folder: folder of the module that it saved, in the run's folder; empty for none.
        gone: share of the channels that were removed, if a share was asked for.
        notes: sentences for the user.
        below_floor: for a build, why its engine may not be shipped, whatever the evaluation says.
    """

    step: str
    seconds: float = 0.0
    points: tuple[CompressionPoint, ...] = ()
    folder: str = ""
    gone: float | None = None
    notes: tuple[str, ...] = ()
    below_floor: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compression(Document):
    """A run of `trtbuild compress` or `trtbuild tune`, finished or not.

    Attributes:
        target: the module.
        asked: option -> text, for everything that decides the result; a run continues only with the same.
        steps: the names of all steps, in order.
        done: the finished steps; others were not due, or are still to be done.
        chosen: the round that is kept; None before the end, and if nothing meets the limits.
        met: whether everything was reached within the limits; None before the end, and without limits.
        verdict: ``SHIP``, ``DO NOT SHIP`` or ``NOT JUDGED``; empty before the end.
        why: the reason in a sentence; empty before the end.
        module: folder of the module that is kept, for ``--weights``; empty before the end.
    """

    SCHEMA = "trtbuild.compression"

    target: str
    asked: dict[str, str]
    steps: tuple[str, ...]
    done: tuple[CompressionStep, ...] = ()
    chosen: int | None = None
    met: bool | None = None
    verdict: str = ""
    why: str = ""
    module: str = ""

    @property
    def points(self) -> tuple[CompressionPoint, ...]:
        """All evaluated networks, in order."""
        return tuple(point for done in self.done for point in done.points)

    def folder_of(self, number: int) -> str:
        """Return the folder of the last module that a round saved; empty for the module as loaded."""
        of_round = [done for done in self.done if done.folder.startswith(f"{number}/")]
        return of_round[-1].folder if of_round else ""

    def has(self, step: str) -> bool:
        """Return whether a step is finished."""
        return any(done.step == step for done in self.done)

    def having(self, done: CompressionStep) -> Compression:
        """Return the record with one more finished step."""
        return replace(self, done=(*self.done, done))


def begin(fresh: Compression, folder: Path, *, anew: bool) -> Compression:
    """Return the record of the run in `folder`, or `fresh` if there is none.

    Args:
        fresh: a record with no finished step.
        folder: folder of the run.
        anew: whether to ignore what the folder holds.

    Raises:
        OptionError: the folder holds a run with other options.
        InputError: its record cannot be read.
    """
    path = folder / FILE
    if anew or not path.exists():
        return fresh
    found = Compression.load(path)
    if (found.target, found.steps, found.asked) == (fresh.target, fresh.steps, fresh.asked):
        return found
    names = sorted({*found.asked, *fresh.asked})
    other = [name for name in names if found.asked.get(name) != fresh.asked.get(name)]
    what = ", ".join(name.rpartition(".")[2] for name in other[:4]) or "its steps"
    raise OptionError(
        f"'{folder}' holds a run that differs in {what}; name another folder with -o, or start over with "
        "--fresh."
    )


def write_record(record: Compression, folder: Path) -> None:
    """Write the record into `folder`, completely or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(folder / FILE, dumps(record.to_json()) + "\n")
