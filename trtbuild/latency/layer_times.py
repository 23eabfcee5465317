"""How long each layer of an engine takes: measured by the runtime's profiler or read from a file, by node.

A profiler uses the runtime's names of layers: TensorRT joins the names of fused nodes, ONNX Runtime keeps
the name of the node that a kernel comes from and may add a suffix. The times include the profiler's overhead,
so they compare layers with each other but do not give the latency of a run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trtbuild.errors import InputError, OptionError, decoding
from trtbuild.files import write_text
from trtbuild.json_codec import Document, dumps, load_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from trtbuild.runtime.session import Feeds

__all__ = [
    "LayerTimes",
    "measure_in_turns",
    "measure_layers",
    "plain_name",
    "read_layer_times",
]

# Other work of the machine disturbs a layer's slowest runs; this share of the runs is dropped.
_DROPPED = 0.25
# Suffix that ONNX Runtime's layout pass adds to the name of a node that it makes anew.
_MARK = re.compile(r"_token_\d+$")


class ProfiledSession(Protocol):
    """A session that reports the time of each layer."""

    def run_profiled(self, feeds: Feeds, runs: int) -> None:
        """Run `runs` times."""
        ...

    def layer_runs_ms(self) -> Sequence[Mapping[str, float]]:
        """Return layer -> milliseconds for each of the runs, after the last of them."""
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        ...


@dataclass(frozen=True)
class LayerTimes(Document):
    """Milliseconds of each layer.

    Attributes:
        source: what measured them, in words.
        runs: number of runs that were counted.
        layers: layer -> milliseconds a run, in the order of execution.
    """

    SCHEMA = "trtbuild.layer_times"

    source: str
    runs: int
    layers: dict[str, float]

    @property
    def total(self) -> float:
        """Milliseconds of all layers."""
        return sum(self.layers.values())

    def by_node(self, nodes: Collection[str]) -> dict[str, float]:
        """Return node -> milliseconds, for layers that come from one of `nodes`.

        A layer of several nodes counts for the first of them in its name. Layers that the runtime adds
        (reformats, transposes) count for no node.
        """
        found: dict[str, float] = {}
        known = set(nodes)
        for layer, ms in self.layers.items():
            node = _node_of(layer, known)
            if node is not None:
                found[node] = found.get(node, 0.0) + ms
        return found

    def write(self, path: Path) -> None:
        """Write them as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(path, dumps(self.to_json()) + "\n")


def plain_name(layer: str) -> str:
    """Return a layer's name without the suffix of ONNX Runtime's layout pass."""
    return _MARK.sub("", layer)


def _node_of(layer: str, known: Collection[str]) -> str | None:
    if layer in known:
        return layer
    bare = plain_name(layer)
    if bare in known:
        return bare
    parts = (part.strip() for part in layer.split(" + "))
    return next((part for part in parts if part in known), _inside(layer, known))


def _inside(layer: str, known: Collection[str]) -> str | None:
    """The longest known name among the words of a layer's name, split at spaces, commas and brackets."""
    words = re.split(r"[\s,()\[\]]+", plain_name(layer))
    return max((word for word in words if word in known), key=len, default=None)


def measure_layers(
    session: ProfiledSession, feeds: Sequence[Feeds], runs: int, source: str
) -> LayerTimes:
    """Return the time of each layer: the mean of the fastest three quarters of its runs.

    Args:
        session: a session that profiles itself.
        feeds: the inputs to run on.
        runs: how many runs count, shared among `feeds`; each of them gets one warm-up run more.
        source: what measures, in words.

    Raises:
        OptionError: there are no feeds.
    """
    return measure_in_turns([session], feeds, runs, source)[0]


def measure_in_turns(
    sessions: Sequence[ProfiledSession],
    feeds: Sequence[Feeds],
    runs: int,
    source: str,
    rounds: int = 1,
) -> list[LayerTimes]:
    """Return the times of each session's layers, as `measure_layers` does, taken in turns: A B, B A, ...

    Other work of the machine comes and goes; in turns, it disturbs all sessions alike.

    Args:
        sessions: sessions that profile themselves.
        feeds: the inputs to run on.
        runs: how many runs of each session count, shared among its turns; each turn has one warm-up run more.
        source: what measures, in words.
        rounds: how many turns each session has on each of `feeds`.

    Raises:
        OptionError: there are no feeds.
    """
    if not feeds:
        raise OptionError("layer times need data to run on.")
    each = 1 + -(-runs // (rounds * len(feeds)))
    for number in range(rounds):
        for one in feeds:
            for session in reversed(sessions) if number % 2 else sessions:
                session.run_profiled(one, each)
    return [_times(session.layer_runs_ms(), each, source) for session in sessions]


def _times(runs: Sequence[Mapping[str, float]], per_turn: int, source: str) -> LayerTimes:
    taken = [run for place, run in enumerate(runs) if place % per_turn]  # without warm-up runs
    return LayerTimes(source, len(taken), dict(_means(taken)))


def _means(taken: Sequence[Mapping[str, float]]) -> Iterable[tuple[str, float]]:
    names = dict.fromkeys(name for run in taken for name in run)
    for name in names:
        values = sorted(run[name] for run in taken if name in run)
        kept = values[: max(1, round(len(values) * (1 - _DROPPED)))]
        # a layer that some runs skip, such as in a branch of If, counts by the share of runs that execute it
        yield name, sum(kept) / len(kept) * len(values) / len(taken)


def read_layer_times(path: Path) -> LayerTimes:
    """Read layer times: our own file, or one that ``trtexec --exportProfile`` wrote.

    Raises:
        InputError: the file cannot be read, or is neither.
    """
    data = load_json(path)
    found = (data.get("schema"), data.get("version")) if isinstance(data, dict) else None
    if found == (LayerTimes.SCHEMA, LayerTimes.VERSION):
        with decoding(InputError, f"the layer times '{path}' are damaged"):
            layers = {str(name): float(ms) for name, ms in data["layers"].items()}
            return LayerTimes(str(data["source"]), int(data["runs"]), layers)
    with decoding(
        InputError,
        f"'{path}' holds no layer times",
        "Give what `trtbuild bench --layer-times` or `trtexec --exportProfile` wrote.",
    ):
        runs, layers = 0, {}
        for entry in data:
            if "count" in entry:
                runs = int(entry["count"])
            else:
                layers[str(entry["name"])] = float(entry["averageMs"])
        if not layers:
            raise ValueError("it names no layer")
        return LayerTimes(f"trtexec's profile {path.name}", runs, layers)
