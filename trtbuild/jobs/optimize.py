"""Runs graph passes on an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.errors import in_one_tree
from trtbuild.jobs.foreign_operators import front_of, warn_about_tensorrt
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.json_codec import Document
from trtbuild.model import read_model, read_unchanged, write_model
from trtbuild.passes import all_passes, optimize
from trtbuild.passes.catalogue import aliases_of
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbuild.model.stats import GraphStats
    from trtbuild.passes import OptimizeResult
    from trtbuild.passes.driver import Rollback
    from trtbuild.passes.editor import Note
    from trtbuild.recipes import OptimizeRecipe

__all__ = [
    "NetworkSize",
    "Optimization",
    "OptimizedFile",
    "PassEntry",
    "PassList",
    "PassNotes",
    "optimize_file",
    "passes_list",
]


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network; see `trtbuild.model.stats.GraphStats`.

    Attributes:
        num_bytes: size of its files.
        num_nodes: all nodes but Constant.
        op_types: operator -> number of nodes.
        parameters: elements of all constants.
        weight_bytes: bytes of all constants.
        macs: multiply-accumulates.
    """

    num_bytes: int
    num_nodes: int
    op_types: Mapping[str, int]
    parameters: int
    weight_bytes: int
    macs: int


@dataclass(frozen=True)
class PassNotes:
    """What one pass did.

    Attributes:
        seconds: wall clock over all rounds.
        changes: what it changed.
        declined: near matches that remain at the end, and why.
    """

    seconds: float
    changes: tuple[Note, ...]
    declined: tuple[Note, ...]


@dataclass(frozen=True)
class Optimization(Document):
    """The result of graph passes on a file.

    Attributes:
        files: the written files.
        before, after: size of the network.
        num_rounds: how often the default passes were run.
        compared: how the result was compared with the original, in a sentence.
        passes: pass -> what it did.
        undoing: passes that undo each other, which stopped the rounds; else empty.
        capped: whether the cap stopped the rounds.
        rolled_back: passes whose work was undone because it changed a result.
    """

    SCHEMA = "trtbuild.optimization"

    files: tuple[Path, ...]
    before: NetworkSize
    after: NetworkSize
    num_rounds: int
    compared: str
    passes: Mapping[str, PassNotes]
    undoing: tuple[str, ...]
    capped: bool
    rolled_back: tuple[Rollback, ...]


@dataclass(frozen=True)
class OptimizedFile:
    """Result of the passes, the written files, and the sizes of the network on disk."""

    result: OptimizeResult
    files: tuple[Path, ...]
    bytes_before: int
    bytes_after: int

    @property
    def record(self) -> Optimization:
        """The part that programs read."""
        log = self.result.log
        passes = {
            name: PassNotes(
                seconds, tuple(log.fired.get(name, ())), tuple(log.declined.get(name, ()))
            )
            for name, seconds in log.seconds.items()
        }
        return Optimization(
            files=self.files,
            before=_size(self.result.before, self.bytes_before),
            after=_size(self.result.after, self.bytes_after),
            num_rounds=log.rounds,
            compared=log.comparison,
            passes=passes,
            undoing=log.undoing,
            capped=log.capped,
            rolled_back=tuple(log.rolled_back),
        )


def _size(stats: GraphStats, num_bytes: int) -> NetworkSize:
    return NetworkSize(
        num_bytes=num_bytes,
        num_nodes=stats.node_count,
        op_types=stats.nodes,
        parameters=stats.parameters,
        weight_bytes=stats.parameter_bytes,
        macs=stats.macs,
    )


@dataclass(frozen=True)
class PassEntry:
    """One graph pass.

    Attributes:
        name: its name.
        opt_in: whether it runs on request only.
        summary: what it does.
        aliases: other tool -> its name for the pass.
    """

    name: str
    opt_in: bool
    summary: str
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class PassList(Document):
    """All graph passes, those of plug-ins included."""

    SCHEMA = "trtbuild.passes"

    passes: tuple[PassEntry, ...]


def passes_list() -> PassList:
    """Return all graph passes."""
    return PassList(
        tuple(
            PassEntry(one.name, one.opt_in, one.describe().summary, aliases_of(one.name))
            for one in all_passes()
        )
    )


@in_one_tree()
def optimize_file(recipe: OptimizeRecipe, progress: Progress = silent) -> OptimizedFile:
    """Read the recipe's source, run the passes on it, and write its target.

    Raises:
        ModelError: the network cannot be read.
        OptionError: a named pass does not exist.
        OutputError: the target cannot be written.
    """
    check_paths(named_inputs(the_network=recipe.source), [recipe.target])
    read = read_model if recipe.fixed_weights else read_unchanged
    model = read(recipe.source)
    warn_about_tensorrt(model, recipe.source)
    front, found = front_of(model)
    result = optimize(front, recipe.options, progress)
    if found is not None:
        result = replace(result, model=found.join(result.model))
    files = tuple(write_model(result.model, recipe.target))
    return OptimizedFile(
        result, files, recipe.source.stat().st_size, sum(file.stat().st_size for file in files)
    )
