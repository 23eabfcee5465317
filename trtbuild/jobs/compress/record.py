"""The record of a compression: written whole after every step, so that an interrupted run can go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.errors import OptionError
from trtbuild.files import write_text
from trtbuild.json_codec import decode, dumps, encode, load_object

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "FILE",
    "SCHEMA",
    "VERSION",
    "Compression",
    "CompressionPoint",
    "CompressionStep",
    "begin",
    "write_record",
]

SCHEMA, VERSION = "trtbuild.compression", 1
FILE = "compression.json"

_MARGIN = 1e-9  # of a figure in floating point

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
    """One network on the way, as it was judged.

    Attributes:
        stage: ``loaded``, ``pruned``, ``sparse``, ``tuned``; of a build ``folded``, ``weights`` (in INT8),
            ``form`` (everything in INT8 as written) and ``engine``.
        round: 0 is the module as loaded; every round takes something away.
        path: what holds it, in the folder of the run; empty where it was not kept.
        figure: of the user's evaluation; None where there is none.
        lost: of the figure, since the module was loaded.
        limit: the most that may be lost here; None for no limit.
        parameters: values that are learned.
        macs: multiply-accumulates of one sample; None where they cannot be counted.
        weight_bytes: what parameters, buffers or constants take.
        latency_ms: median of one run; None where it was not measured.
        latency_share: of the module as loaded, measured in turns with it.
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
        """Whether no more was lost than may be."""
        return self.limit is None or self.lost is None or self.lost <= self.limit + _MARGIN

    @property
    def what(self) -> str:
        """What it is, in words."""
        title = TITLES[self.stage]
        return f"{title} of round {self.round}" if self.round else title


@dataclass(frozen=True)
class CompressionStep:
    """A step that is done.

    Attributes:
        step: its name.
        seconds: that it took.
        points: what was judged in it.
        folder: of the module that it left, in the folder of the run; empty for none.
        gone: share of the channels that went, where that was the wish.
        notes: sentences for the user.
        below_floor: of a build: why its engine may not be shipped, whatever the evaluation says of it.
    """

    step: str
    seconds: float
    points: tuple[CompressionPoint, ...] = ()
    folder: str = ""
    gone: float | None = None
    notes: tuple[str, ...] = ()
    below_floor: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compression:
    """A run of `trtbuild compress` or `trtbuild tune`, finished or not.

    Attributes:
        target: the module.
        asked: option -> text, of everything that decides what comes out; a run goes on only with the same.
        steps: the names of all steps, in their order.
        done: the steps that are done; others were not due, or are still to be done.
        chosen: the round that is kept; None before the end, and where nothing meets the limits.
        met: whether everything was reached within the limits; None before the end, and without limits.
        verdict: ``SHIP``, ``DO NOT SHIP`` or ``NOT JUDGED``; empty before the end.
        why: the same in a sentence; empty before the end.
        module: folder of the module that is kept, for ``--weights``; empty before the end.
    """

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
        """Everything that was judged, in its order."""
        return tuple(point for done in self.done for point in done.points)

    def folder_of(self, number: int) -> str:
        """Return the folder of the module that a round has left last; empty for the module as loaded."""
        of_round = [done for done in self.done if done.folder.startswith(f"{number}/")]
        return of_round[-1].folder if of_round else ""

    def has(self, step: str) -> bool:
        """Return whether a step is done."""
        return any(done.step == step for done in self.done)

    def having(self, done: CompressionStep) -> Compression:
        """Return the record with one more step done."""
        return replace(self, done=(*self.done, done))


def begin(fresh: Compression, folder: Path, *, anew: bool) -> Compression:
    """Return the record of the run that `folder` holds, or `fresh` where it holds none.

    Args:
        fresh: with nothing done.
        folder: of the run.
        anew: whether what the folder holds is not looked at.

    Raises:
        OptionError: it holds a run that asked for something else.
        InputError: its record cannot be read.
    """
    path = folder / FILE
    if anew or not path.exists():
        return fresh
    fields = load_object(path, SCHEMA, VERSION)
    found = decode(
        Compression,
        {key: value for key, value in fields.items() if key not in ("schema", "version")},
        f"'{path}'",
    )
    if (found.target, found.steps, found.asked) == (fresh.target, fresh.steps, fresh.asked):
        return found
    names = sorted({*found.asked, *fresh.asked})
    other = [name for name in names if found.asked.get(name) != fresh.asked.get(name)]
    what = f"other in {', '.join(other[:4])}" if other else "of other steps"
    raise OptionError(
        f"'{folder}' holds a run that is {what}; name another folder with -o, or begin anew with --fresh."
    )


def write_record(record: Compression, folder: Path) -> None:
    """Write the record into `folder`, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    text = dumps({"schema": SCHEMA, "version": VERSION, **encode(record)})
    write_text(folder / FILE, text + "\n")
