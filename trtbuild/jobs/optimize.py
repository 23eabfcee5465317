"""Runs graph passes on an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbuild.errors import in_one_tree
from trtbuild.jobs.foreign_operators import front_of, warn_about_tensorrt
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.model import read_model, read_unchanged, write_model
from trtbuild.passes import optimize
from trtbuild.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from trtbuild.passes import OptimizeResult
    from trtbuild.recipes import OptimizeRecipe

__all__ = ["OptimizedFile", "optimize_file"]


@dataclass(frozen=True)
class OptimizedFile:
    """Result of the passes, the written files, and the sizes of the network on disk."""

    result: OptimizeResult
    files: tuple[Path, ...]
    bytes_before: int
    bytes_after: int


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
