"""How long each layer of an engine takes: measured by the runtime's profiler, read from a file, by node.

A profiler names layers as the runtime has them: TensorRT joins the names of fused nodes, ONNX Runtime keeps
the name of the node that a kernel was made of, with a mark behind it. What a profiler adds to the run is
part of the times, so they are for comparing layers, and not for what a run takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trtbuild.errors import InputError, OptionError, decoding
from trtbuild.files import write_text
from trtbuild.json_codec import dumps, encode, load_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from trtbuild.runtime.session import Feeds

__all__ = ["SCHEMA", "VERSION", "LayerTimes", "measure_layers", "read_layer_times"]

SCHEMA = "trtbuild.layer_times"
VERSION = 1

# The slowest runs of a layer met other work of the machine; this share of them does not count.
_DROPPED = 0.25
# What ONNX Runtime's layout pass writes behind the name of a node that it made anew.
_MARK = re.compile(r"_token_\d+$")


class ProfiledSession(Protocol):
    """A session that tells how long each layer of a run took."""

    def layer_runs_ms(self, feeds: Sequence[Feeds], runs: int) -> Sequence[Mapping[str, float]]:
        """Run `runs` times on each of `feeds`, one after the other; layer -> milliseconds of each run."""
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        ...


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of each layer.

    Attributes:
        source: what measured them, in words.
        runs: of the network that were counted.
        layers: layer -> milliseconds a run, in the order of execution.
    """

    source: str
    runs: int
    layers: dict[str, float]

    @property
    def total(self) -> float:
        """Milliseconds of all layers."""
        return sum(self.layers.values())

    def by_node(self, nodes: Collection[str]) -> dict[str, float]:
        """Return node -> milliseconds, of layers that were made of one of `nodes`.

        A layer of several nodes gives its time to the first of them in its name; what only the runtime
        put there (reformats, transposes) belongs to none.
        """
        found: dict[str, float] = {}
        known = set(nodes)
        for layer, ms in self.layers.items():
            node = _node_of(layer, known)
            if node is not None:
                found[node] = found.get(node, 0.0) + ms
        return found

    def to_json(self) -> dict[str, Any]:
        """Return JSON types, with the schema's name and version."""
        return {"schema": SCHEMA, "version": VERSION, **encode(self)}

    def write(self, path: Path) -> None:
        """Write them as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(path, dumps(self.to_json()) + "\n")


def _node_of(layer: str, known: Collection[str]) -> str | None:
    if layer in known:
        return layer
    bare = _MARK.sub("", layer)
    if bare in known:
        return bare
    parts = (part.strip() for part in layer.split(" + "))
    return next((part for part in parts if part in known), _inside(layer, known))


def _inside(layer: str, known: Collection[str]) -> str | None:
    """The longest known name between marks that no name begins or ends with, such as those of a fusion."""
    words = re.split(r"[\s,()\[\]]+", _MARK.sub("", layer))
    return max((word for word in words if word in known), key=len, default=None)


def measure_layers(
    session: ProfiledSession, feeds: Sequence[Feeds], runs: int, source: str
) -> LayerTimes:
    """Return the time of each layer: the mean of its faster three quarters of runs.

    Args:
        session: what profiles itself.
        feeds: what to run on.
        runs: how many count, shared among `feeds`; one more on each of them goes ahead.
        source: what measures, in words.

    Raises:
        OptionError: nothing to run on.
    """
    if not feeds:
        raise OptionError("layer times need data to run on.")
    each = 1 + -(-runs // len(feeds))
    taken = [
        run
        for place, run in enumerate(session.layer_runs_ms(feeds, each))
        if place % each  # the first on each of them warms up
    ]
    return LayerTimes(source, len(taken), dict(_means(taken)))


def _means(taken: Sequence[Mapping[str, float]]) -> Iterable[tuple[str, float]]:
    names = dict.fromkeys(name for run in taken for name in run)
    for name in names:
        values = sorted(run[name] for run in taken if name in run)
        kept = values[: max(1, round(len(values) * (1 - _DROPPED)))]
        # a layer that a run does without, such as a branch of If, counts as far as it ran
        yield name, sum(kept) / len(kept) * len(values) / len(taken)


def read_layer_times(path: Path) -> LayerTimes:
    """Read layer times: ours, or what ``trtexec --exportProfile`` wrote.

    Raises:
        InputError: the file cannot be read, or is neither.
    """
    data = load_json(path)
    if isinstance(data, dict) and data.get("schema") == SCHEMA and data.get("version") == VERSION:
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
