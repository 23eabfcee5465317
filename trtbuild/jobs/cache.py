"""TensorRT's calibration caches: read, compared, converted to Q/DQ for TensorRT 11 and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbuild.calibration.thresholds import cache_from
from trtbuild.errors import InputError, OptionError, decoding, in_one_tree
from trtbuild.files import content_of, write_bytes
from trtbuild.jobs.paths import check_paths, named_inputs
from trtbuild.migration import to_cache, to_qdq
from trtbuild.model import read_model, write_model
from trtbuild.quantization.half import to_half

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibrators.cache import CalibrationCache
    from trtbuild.migration import Migration
    from trtbuild.quantization.half import KeptFloat
    from trtbuild.recipes import CacheDiffRecipe, ConvertRecipe

__all__ = ["CacheDiff", "Converted", "compare_caches", "convert", "read_cache"]

# The first line is TRT-<version>-<algorithm>.
_CACHE_BEGINS = b"TRT-"


@dataclass(frozen=True)
class CacheDiff:
    """The differences of two caches.

    Attributes:
        first, second: the caches.
        changed: tensor -> second scale / first scale, where they differ; infinite if the first is 0.
        only_first, only_second: tensors that only this cache has.
    """

    first: CalibrationCache
    second: CalibrationCache
    changed: Mapping[str, float]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether both have the same tensors with the same scales."""
        return not (self.changed or self.only_first or self.only_second)


@dataclass(frozen=True)
class Converted:
    """A network in its new form.

    Attributes:
        migration: what happened to every scale.
        files: the written files.
        kept_fp32: nodes that FP16 would spoil, and why; None if FP16 was not asked for.
    """

    migration: Migration
    files: tuple[Path, ...]
    kept_fp32: tuple[KeptFloat, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return values that `trtbuild.json_codec.encode` can encode."""
        found = {"files": self.files, **self.migration.to_json()}
        if self.kept_fp32 is not None:
            found["kept_fp32"] = [{"node": k.node, "reason": k.reason} for k in self.kept_fp32]
        return found


def read_cache(path: Path) -> CalibrationCache:
    """Read a TensorRT calibration cache.

    Raises:
        InputError: it cannot be read, or is not a cache.
        OptionError: it is a network.
    """
    if path.suffix == ".onnx":
        raise OptionError(
            f"'{path}' is a network, but a calibration cache is expected; "
            "`cache convert` takes the cache first, then the network."
        )
    with decoding(InputError, f"the cache '{path}' cannot be read"):
        content = content_of(path)
    with in_one_tree(f"'{path}': "):
        return cache_from(content, path)


def compare_caches(recipe: CacheDiffRecipe) -> CacheDiff:
    """Compare two caches tensor by tensor.

    Raises:
        InputError: a cache cannot be read, or is not a cache.
    """
    first, second = read_cache(recipe.first), read_cache(recipe.second)
    changed = {}
    for name in first.scales.keys() & second.scales.keys():
        one, other = float(first.scales[name]), float(second.scales[name])
        if one != other and not abs(one - other) <= recipe.tolerance * max(abs(one), abs(other)):
            changed[name] = other / one if one else math.inf
    return CacheDiff(
        first,
        second,
        {name: changed[name] for name in first.scales if name in changed},
        tuple(name for name in first.scales if name not in second.scales),
        tuple(name for name in second.scales if name not in first.scales),
    )


@in_one_tree()
def convert(recipe: ConvertRecipe) -> Converted:
    """Convert a cache and its network into a Q/DQ network, or a Q/DQ network into a plain one and a cache.

    Raises:
        ModelError: a network cannot be read.
        InputError: the cache cannot be read.
        OptionError: a cache was given without its network, a pattern does not fit the network, or the
            version is not a version.
        OutputError: a file cannot be written.
    """
    beside = recipe.output.with_suffix(".cache") if recipe.model is None else None
    reads = named_inputs(the_source=recipe.source, the_network=recipe.model)
    check_paths(reads, [recipe.output, beside])
    if recipe.model is None:
        _check_is_network(recipe.source)
        migration = to_cache(read_model(recipe.source), recipe.tensorrt_version)
        assert migration.cache is not None
        files = write_model(migration.model, recipe.output)
        path = recipe.output.with_suffix(".cache")
        write_bytes(path, migration.cache.to_bytes())
        return Converted(migration, (*files, path))
    cache = read_cache(recipe.source)
    migration = to_qdq(read_model(recipe.model), cache, recipe.float_patterns)
    if not recipe.fp16:
        return Converted(migration, tuple(write_model(migration.model, recipe.output)))
    half, kept = to_half(migration.model, cache.amaxes)
    return Converted(migration, tuple(write_model(half, recipe.output)), tuple(kept))


def _check_is_network(path: Path) -> None:
    """Refuse a cache where a network is needed: its scales need the network that they belong to."""
    if not path.is_file():
        return  # an error when the network is read
    with path.open("rb") as file:
        begins_as_cache = file.read(len(_CACHE_BEGINS)) == _CACHE_BEGINS
    if begins_as_cache:
        raise OptionError(
            f"'{path}' is a calibration cache: name the float network that it was made for after it."
        )
