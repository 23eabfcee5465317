"""Reads and prepares a network: the first steps of every job that starts from a float network."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from trtbuild.artifact import Artifact, Record
from trtbuild.files import file_digest
from trtbuild.jobs.foreign_operators import without_foreign
from trtbuild.model import name_nodes, read_model, repairs_of, say_batch_axes
from trtbuild.model.attributes import is_random
from trtbuild.model.traversal import all_nodes, label
from trtbuild.passes import OptimizeOptions, optimize
from trtbuild.progress import Progress, silent
from trtbuild.whereabouts import reading
from trtbuild.wording import counted, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["load", "load_recorded", "prepare"]

_log = logging.getLogger(__name__)

# Number of nodes that a message names.
_MOST_NAMED = 4


def load(path: Path, batch_axes: Mapping[str, object] | None = None) -> Artifact:
    """Read the float network at `path`, cut before operators that ONNX Runtime cannot run.

    Args:
        path: path of the network.
        batch_axes: input or output -> its batch axis, as the user gives it; written into the network.

    Raises:
        ModelError: see `trtbuild.model.read_model` and `trtbuild.jobs.foreign_operators.without_foreign`.
        OptionError: `batch_axes` do not fit the network.
    """
    reading(path.name)
    model = read_model(path)
    say_batch_axes(model, batch_axes or {})
    random = [label(node) for node in all_nodes(model.graph) if is_random(node)]
    if random:
        _log.warning(
            "'%s' draws random numbers (%s): its outputs differ in each run, so no figure says what INT8 "
            "costs; export it without them.",
            path,
            listed([f"'{name}'" for name in random], _MOST_NAMED),
        )
    opset = model.graph.opset_imports.get("", 0)
    details = {
        "file": path.name,
        "opset": opset,
        "repairs": list(repairs_of(model)),
    }
    record = Record("read", f"{counted(len(model.graph), 'node')}, opset {opset}", details)
    return without_foreign(Artifact(path.stem, model, model, history=(record,)), path)


def load_recorded(path: Path, batch_axes: Mapping[str, object] | None = None) -> Artifact:
    """Do the same as `load`, and record the digest of the file, for a manifest."""
    with _digest_beside(path) as digest:
        artifact = load(path, batch_axes)
    read, *others = artifact.history
    details = {"file": path.name, "digest": digest.result(), **read.details}
    return replace(artifact, history=(replace(read, details=details), *others))


@contextlib.contextmanager
def _digest_beside(path: Path) -> Iterator[Future[str]]:
    """Compute a file's digest while the block reads the file; stop if the block raises an error.

    If there is no file at `path`, the block must raise.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        found = beside.submit(file_digest, path, stop.is_set) if path.is_file() else Future()
        try:
            yield found
        except BaseException:
            stop.set()
            raise


def prepare(
    artifact: Artifact, options: OptimizeOptions | None = None, progress: Progress = silent
) -> Artifact:
    """Run the graph passes: fold constants and batch norms, remove dead nodes, and more."""
    result = optimize(artifact.model, options or OptimizeOptions(), progress)
    nodes = (len(artifact.model.graph), len(result.model.graph))
    fired = Counter({run.name: 0 for run in result.log.runs})
    for run in result.log.runs:
        fired[run.name] += len(run.changes)
    details = {
        "changes": {name: count for name, count in fired.items() if count},
        "rolled_back": {undone.name: undone.reason for undone in result.log.rolled_back},
        "comparison": result.log.comparison,
    }
    name_nodes(result.model)
    record = Record("optimize", f"{counted(nodes[0], 'node')} became {nodes[1]}", details)
    return artifact.having(record, model=result.model)
